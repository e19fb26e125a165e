"""What can be set: one table from which flags, environment, file and documentation follow."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

__all__ = ["ENV_PREFIX", "Settings", "SettingsError", "load"]

ENV_PREFIX: Final = "STREAMKIT_"
OFF: Final = "off"

_KEY: Final = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")  # a bearer token (RFC 6750, section 2.1)
_HOST: Final = re.compile(r"(\*\.)?[a-z0-9._-]+|[0-9a-f]*:[0-9a-f:.]*:[0-9a-f.]*")  # or IPv6
_UNSHOWN: Final = frozenset({"operator_key", "engine_options"})  # which may hold an api_key


class SettingsError(Exception):
    """Settings that cannot be used: one line for each problem, which says where it came from."""


def _switched_off(value: object) -> object:
    return None if value == OFF else value


def _option_map(value: object) -> object:
    """``slots=4,seed=1`` from an environment variable, a table from a file."""
    if isinstance(value, str):
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        if not all(separator for _, separator, _ in pairs):
            raise ValueError("input should be KEY=VALUE,KEY=VALUE")
        return {name.strip(): text.strip() for name, _, text in pairs}
    if isinstance(value, dict):
        options = cast("dict[str, object]", value)
        return {name: _as_text(option) for name, option in options.items()}
    return value


def _as_text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _host_list(value: object) -> object:
    """``localhost,*.example.com`` from a flag or a variable, a list from a file."""
    if value == []:
        raise ValueError("input should be names, or off")
    return value.split(",") if isinstance(value, str) and value != OFF else _switched_off(value)


def _sound_host(name: str) -> str:
    plain = name.strip().lower().removeprefix("[").removesuffix("]")
    if not _HOST.fullmatch(plain):
        raise ValueError("input should be names without a port, such as localhost,*.example.com")
    return plain


def _sound_key(key: SecretStr) -> SecretStr:
    if not _KEY.fullmatch(key.get_secret_value()):
        raise ValueError("input should be 16 or more letters, digits or -._~+/")
    return key


Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
OptionalSeconds: TypeAlias = Annotated[Seconds | None, BeforeValidator(_switched_off)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=2**31 - 1)]
OptionalCount: TypeAlias = Annotated[Count | None, BeforeValidator(_switched_off)]
Key: TypeAlias = Annotated[SecretStr, AfterValidator(_sound_key)]
OptionalFolder: TypeAlias = Annotated[Path | None, BeforeValidator(_switched_off)]
OptionalKey: TypeAlias = Annotated[Key | None, BeforeValidator(_switched_off)]
Host: TypeAlias = Annotated[str, AfterValidator(_sound_host)]
OptionalHosts: TypeAlias = Annotated[tuple[Host, ...] | None, BeforeValidator(_host_list)]


class Settings(BaseModel):
    """How ``streamkit serve`` behaves. Frozen; a field's description is its documentation."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: object) -> object:
        if isinstance(value, bool):  # Python takes true for the number 1
            raise ValueError("input should be a number or text")  # noqa: TRY004 - pydantic's way
        return value

    engine: str = Field(default="fake", description="The engine that is served.")
    engine_options: Annotated[dict[str, str], BeforeValidator(_option_map)] = Field(
        default={}, description="Its options, as KEY=VALUE."
    )

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65_535, description="Port to listen on; 0 picks a free one."
    )
    allowed_hosts: OptionalHosts = Field(
        default=None,
        description="Names, with commas between, that a request's Host may have; off: any.",
    )
    operator_key: OptionalKey = Field(
        default=None,
        description="Bearer token of who may list and cancel all requests, others only their own; "
        "off: everybody may.",
    )
    http: Literal["auto", "h11", "httptools"] = Field(
        default="auto", description="HTTP parser; auto takes httptools where it is installed."
    )
    loop: Literal["auto", "asyncio", "uvloop"] = Field(
        default="auto", description="Event loop; auto takes uvloop where it is installed."
    )

    max_queued: int = Field(
        default=256,
        ge=0,
        le=1_000_000,
        description="Requests that may wait beyond the slots of the engine or the model.",
    )
    max_connections: Count = Field(
        default=16_384,
        description="Connections that may be open; one more is answered 503 and closed.",
    )
    max_wait: OptionalSeconds = Field(
        default=None,
        description="Seconds that a request may wait for a slot of a model; or off.",
    )
    predict_concurrency: OptionalCount = Field(
        default=None,
        description="Requests in a model's predict at once; off takes its config.yaml's, or 1.",
    )
    validate_inputs: Literal["all", "models"] = Field(
        default="all",
        description="Which annotations of a model's inputs are held: all, or as on Truss those "
        "that are a pydantic model.",
    )
    extensions: OptionalFolder = Field(
        default=None,
        description="Folder with extensions beside a model's own, each as NAME/extension.py; or "
        "off.",
    )
    slots_cover: Literal["predict", "all"] = Field(
        default="predict", description="What takes a slot: predict, or the /v1 methods as well."
    )
    stream_read_timeout: OptionalSeconds = Field(
        default=None,
        description="Seconds from one chunk of a model to the next, after which its request is "
        "cancelled; off takes its config.yaml's, or 60.",
    )
    first_chunk_timeout: OptionalSeconds = Field(
        default=None,
        description="The same for its first chunk; off takes stream_read_timeout.",
    )
    interrupt_threads: Literal["off", "on"] = Field(
        default="off",
        description="Whether a cancel raises in a model's running sync code, also in threads that "
        "it starts (CPython).",
    )
    max_tokens_limit: Count = Field(
        default=1_000_000, description="The largest max_tokens that a request may ask for."
    )
    max_body_bytes: Count = Field(
        default=100 << 20,  # models take pictures and sound as base64
        description="Bytes of the longest request body, or message of a websocket.",
    )
    read_timeout: Seconds = Field(
        default=30.0,
        description="Seconds that a client has to send its request: head and body, each.",
    )
    request_timeout: OptionalSeconds = Field(
        default=None,
        description="Seconds until a request is cancelled with reason deadline; or off.",
    )
    loss_bound: float = Field(
        default=10.0,
        ge=3,  # as the middleware has it
        le=3600,
        allow_inf_nan=False,
        description="Seconds, at least 3, after which a client is gone that vanished, or that "
        "reads nothing.",
    )
    write_stall: OptionalSeconds = Field(
        default=None,
        description="Seconds that a write may be blocked before the client counts as one that "
        "reads nothing; off takes loss_bound.",
    )
    heartbeat: OptionalSeconds = Field(
        default=15.0,
        description="Seconds of silence until an event stream sends a comment; or off.",
    )
    remembered: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Ended requests that can be looked up by their id.",
    )
    drain_grace: float = Field(
        default=25.0,  # Kubernetes kills 30 s after SIGTERM
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds that running requests may go on after SIGTERM or SIGINT.",
    )

    access_log: Literal["text", "json", "off"] = Field(
        default="text", description="Form of the one line that is logged for each request."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe messages that are logged."
    )

    tcp_notsent_lowat: OptionalCount = Field(
        default=16_384, description="Unsent bytes in the kernel above which a write blocks; or off."
    )
    tcp_send_buffer: OptionalCount = Field(
        default=65_536,
        description="Bytes of the kernel's send buffer; or off, for the system's value.",
    )


def load(
    flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None = None
) -> Settings:
    """Return the settings: flags over environment over file over defaults.

    Engine options of several sources are taken together, key by key.

    Args:
        flags: Values by field name, as a command line's text.
        environment: The process's environment.
        file: A TOML file with the field names as keys.

    Raises:
        SettingsError: The file cannot be read, or a value is not what its setting expects.
    """
    sources: tuple[tuple[Mapping[str, object], Callable[[str], str]], ...] = (
        ({} if file is None else _from_file(file), f"{file}: {{}}".format),
        (_from_environment(environment), variable_of),
        (flags, flag_of),
    )
    origins: dict[str, str] = {}
    merged: dict[str, Any] = {}
    for values, spell in sources:
        for name, value in values.items():
            origins[name] = spell(name)
            merged[name] = _with_options(merged, value) if name == "engine_options" else value
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error, origins))) from None


def flag_of(name: str) -> str:
    """How a field is spelt on the command line."""
    return "--" + ("engine-option" if name == "engine_options" else name.replace("_", "-"))


def variable_of(name: str) -> str:
    """How a field is spelt in the environment."""
    return ENV_PREFIX + name.upper()


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    # An unknown variable is no error: an orchestrator sets some of its own for each service that
    # it knows, and a service may be called streamkit.
    known = {name: environment.get(variable_of(name)) for name in Settings.model_fields}
    return {name: text for name, text in known.items() if text is not None}


def _from_file(file: Path) -> dict[str, object]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {file}: {error.strerror or error}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(f"{file} is not valid TOML: {error}") from None
    for name in values:
        if name not in Settings.model_fields:
            near = difflib.get_close_matches(name, Settings.model_fields, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{file}: there is no setting {name!r}{hint}")
    return values


def _with_options(weaker: Mapping[str, object], stronger: object) -> object:
    """The engine options of two sources; what is wrong is left for the validation to say."""
    try:
        tables = [_option_map(options) for options in (weaker.get("engine_options", {}), stronger)]
    except ValueError:
        return stronger
    merged: dict[str, object] = {}
    for table in tables:
        if not isinstance(table, dict):
            return stronger
        merged |= cast("dict[str, object]", table)
    return merged


def _lines(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    lines: dict[str, None] = {}  # a union reports each of its members
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        name = str(problem["loc"][0])
        got = "" if name in _UNSHOWN else f", got {problem['input']!r}"
        lines[f"{origins[name]}: {message[0].lower()}{message[1:]}{got}"] = None
    return list(lines)
