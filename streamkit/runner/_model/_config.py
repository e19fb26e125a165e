"""A Truss folder's config.yaml: what a server does with it, and the dictionary its model gets."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from streamkit.errors import ModelLoadFailed

from ._defaults import DEFAULTS

logger = logging.getLogger("streamkit.model")

CONFIG_FILE: Final = "config.yaml"

_LINES: Final = "input should be KEY: VALUE lines"
_PLAIN: Final[dict[str, str]] = {"dict_type": _LINES, "model_type": _LINES}
_UNSHOWN: Final = frozenset({"secrets", "environment_variables"})  # their values stay out of logs


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):  # Python takes true for the number 1
        raise ValueError("input should be a number")  # noqa: TRY004 - pydantic's way
    return value


def _as_text(value: object) -> object:
    if not isinstance(value, dict):
        return value
    values = cast("dict[object, object]", value)
    return {str(name): _spelt(each) for name, each in values.items()}


def _spelt(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


Count: TypeAlias = Annotated[int, Field(ge=1), BeforeValidator(_no_boolean)]
Seconds: TypeAlias = Annotated[
    float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_no_boolean)
]
Name: TypeAlias = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    # Truss keeps what it does not know (a newer version may), and so does the model's dictionary.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", protected_namespaces=())


class _Transport(_Section):
    kind: Literal["http", "websocket", "grpc"] = "http"
    ping_interval_seconds: Seconds | None = None
    ping_timeout_seconds: Seconds | None = None


class _Runtime(_Section):
    predict_concurrency: Count = 1
    streaming_read_timeout: Seconds = 60.0
    enable_debug_logs: bool = False
    is_websocket_endpoint: bool = False
    transport: _Transport = _Transport()


class _File(_Section):
    model_name: str | None = None
    model_class_name: Name
    model_class_filename: Name
    model_module_dir: Name
    data_dir: Name
    bundled_packages_dir: Name
    external_package_dirs: list[Name]
    environment_variables: Annotated[dict[str, str], BeforeValidator(_as_text)]
    secrets: dict[str, str | None]
    model_metadata: dict[str, Any]
    docker_server: dict[str, Any] | None = None
    runtime: _Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What config.yaml says, defaults filled in; without a file, the defaults alone.

    Attributes:
        raw: The dictionary that the model's constructor gets: each default of Truss filled in, and
            what neither Truss nor we know left as it is.
        model_name: The name to show; None if the file gives none.
        model_class_name: The class in the model's file.
        model_class_filename: That file, in ``model_module_dir``.
        model_module_dir: A folder below the file's own.
        data_dir: As ``model_module_dir``; the model's constructor gets its path.
        package_dirs: Folders whose content can be imported, below the file's own or beside it.
        environment_variables: To be set before the model's module is imported.
        secrets: Names, and the values to fall back on (never shown in ``repr``).
        predict_concurrency: How many ``predict`` may run at a time.
        streaming_read_timeout: Seconds between two chunks; None if the file does not say.
        websocket: Whether the endpoint was declared to be a websocket.
        ping_interval: Seconds between two pings of a websocket; None if the file does not say.
        ping_timeout: Seconds that a pong may take; None if the file does not say.
        debug_logs: Whether the model asks for logs at level debug.
    """

    raw: dict[str, Any] = field(repr=False)
    model_name: str | None = None
    model_class_name: str = "Model"
    model_class_filename: str = "model.py"
    model_module_dir: str = "model"
    data_dir: str = "data"
    package_dirs: tuple[str, ...] = ("packages",)
    environment_variables: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    secrets: Mapping[str, str | None] = field(default_factory=dict[str, str | None], repr=False)
    predict_concurrency: int = 1
    streaming_read_timeout: float | None = None
    websocket: bool = False
    ping_interval: float | None = None
    ping_timeout: float | None = None
    debug_logs: bool = False


def default_config() -> ModelConfig:
    """What a model without a config.yaml gets."""
    return _config({})


def read_config(file: Path) -> ModelConfig:
    """Read a config.yaml.

    Keys that nobody knows pass, as on Truss; one that looks like a misspelt known one is warned of.

    Raises:
        ModelLoadFailed: It cannot be read, is no YAML, or a value is not what its key expects:
            the message names file, key, value and what is expected.
    """
    given = _mapping(file)
    _warn_of_misspelt(file, given)
    try:
        config = _config(given)
    except ValidationError as error:
        raise ModelLoadFailed("\n".join(_lines(file, error))) from None
    if config.raw["docker_server"]:
        raise ModelLoadFailed(
            f"{file}: docker_server starts a server of its own instead of a model class; "
            "start that server, or remove the key and add a class"
        )
    return config


def _mapping(file: Path) -> dict[str, Any]:
    try:
        content: object = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ModelLoadFailed(f"{file} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ModelLoadFailed(f"{file} is not valid YAML: {text}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ModelLoadFailed(f"{file}: expected KEY: VALUE lines at the top, got a {kind}")
    return {str(key): value for key, value in cast("dict[object, Any]", content).items()}


def _config(given: Mapping[str, Any]) -> ModelConfig:
    raw = _filled(given, DEFAULTS)
    file = _File.model_validate(raw)
    raw["environment_variables"] = file.environment_variables
    runtime, transport = file.runtime, file.runtime.transport
    websocket = runtime.is_websocket_endpoint or transport.kind == "websocket"
    _derive(raw, websocket=websocket)
    said = cast("dict[str, Any]", given.get("runtime") or {})
    return ModelConfig(
        raw=raw,
        model_name=file.model_name,
        model_class_name=file.model_class_name,
        model_class_filename=file.model_class_filename,
        model_module_dir=file.model_module_dir,
        data_dir=file.data_dir,
        package_dirs=(file.bundled_packages_dir, *file.external_package_dirs),
        environment_variables=file.environment_variables,
        secrets=file.secrets,
        predict_concurrency=runtime.predict_concurrency,
        streaming_read_timeout=(
            None if said.get("streaming_read_timeout") is None else runtime.streaming_read_timeout
        ),
        websocket=websocket,
        ping_interval=transport.ping_interval_seconds,
        ping_timeout=transport.ping_timeout_seconds,
        debug_logs=runtime.enable_debug_logs,
    )


def _derive(raw: dict[str, Any], *, websocket: bool) -> None:
    """What Truss works out, whatever the file says of it."""
    resources, runtime = raw["resources"], raw["runtime"]
    if isinstance(resources, dict):
        accelerator: object = cast("dict[str, object]", resources).get("accelerator")
        resources["use_gpu"] = accelerator is not None
    runtime["is_websocket_endpoint"] = websocket
    if websocket:
        defaults = {"ping_interval_seconds": None, "ping_timeout_seconds": None}
        runtime["transport"] = {**defaults, **runtime["transport"], "kind": "websocket"}


def _filled(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults, deeply, under what was given; a key without a value counts as not given."""
    filled = copy.deepcopy(dict(defaults))
    for key, value in given.items():
        default = filled.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            filled[key] = _filled(cast("dict[str, Any]", value), cast("dict[str, Any]", default))
        elif value is not None or key not in filled:
            filled[key] = value
    return filled


def _warn_of_misspelt(file: Path, given: Mapping[str, Any]) -> None:
    runtime = given.get("runtime")
    sections: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [("", given, DEFAULTS)]
    if isinstance(runtime, dict):
        sections.append(("runtime.", cast("dict[str, Any]", runtime), DEFAULTS["runtime"]))
    for prefix, keys, known in sections:
        for key in map(str, keys):
            near = [] if key in known else difflib.get_close_matches(key, known, 1, 0.85)
            if near:
                logger.warning(
                    "%s: nobody knows the key %s%s; did you mean %s%s?",
                    file,
                    prefix,
                    key,
                    prefix,
                    near[0],
                )


def _lines(file: Path, error: ValidationError) -> list[str]:
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        key = ".".join(map(str, problem["loc"]))
        message = _PLAIN.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        hidden = problem["loc"][0] in _UNSHOWN
        value = f"a {type(problem['input']).__name__}" if hidden else repr(problem["input"])
        lines.append(f"{file}: {key}: {message[0].lower()}{message[1:]}, got {value}")
    return lines
