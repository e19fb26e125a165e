"""Makes the model object: its constructor, and that of each extension, gets what it asks for."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from streamkit.errors import ModelDefinitionError

from ._config import ModelConfig
from ._environment import Environment
from ._module import import_file
from ._secrets import Secrets
from ._target import EXTENSIONS, Form, Target

logger = logging.getLogger("streamkit.model")

# What a constructor may ask for, made only if it does.
Offer: TypeAlias = Mapping[str, Callable[[], object]]

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class DataResolver:
    """What Truss's server fetches large files with; here they have to be in place already."""

    def __init__(self, config: ModelConfig) -> None:
        self._unfetched = [key for key in ("model_cache", "weights") if config.raw[key]]

    def block_until_download_complete(
        self,
        log_stats: bool = True,
        issue_collect: bool = True,
    ) -> str:
        """Return at once, with nothing fetched."""
        del log_stats, issue_collect
        for key in self._unfetched:
            logger.warning("%s of config.yaml is not downloaded: put the files in place", key)
        return ""

    def fetch(self) -> None:
        """The name of the same in older versions of Truss."""
        self.block_until_download_complete()

    def raise_if_not_collected(self) -> None:
        """Nothing was to be fetched, so nothing was forgotten."""


def offer(target: Target, environment: Environment, secrets_dir: Path) -> Offer:
    """What a server of Truss gives to constructors, by keyword."""
    config = target.config
    has_file = target.form is Form.FOLDER
    return {
        "config": lambda: copy.deepcopy(config.raw),
        "data_dir": lambda: _data_dir(target),
        "secrets": lambda: Secrets(config.secrets, open=not has_file, folder=secrets_dir),
        "lazy_data_resolver": lambda: DataResolver(config),
        "environment": environment.read,
    }


_ASGI: Final = ["scope", "receive", "send"]


def construct(make: object, offered: Offer) -> object:
    """Call a class with those of the offered keywords that it takes.

    Raises:
        ModelDefinitionError: It is no class, or needs an argument that nobody offers.
    """
    if not callable(make):
        raise ModelDefinitionError(f"{make!r} is no class: it cannot be called to make a model")
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # a class that is not written in Python
        return make()
    if not inspect.isclass(make) and [each.name for each in parameters] == _ASGI:
        kind = type(make).__name__
        raise ModelDefinitionError(
            f"this is an ASGI app ({kind}) and no model class: run it as it is, as in "
            "`uvicorn package.module:app`; streamkit's middleware goes into it"
        )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        wanted = set(offered)
    else:
        wanted = {each.name for each in parameters if each.kind in _NAMED} & set(offered)
    for parameter in parameters:
        if _lacks(parameter, offered):
            raise ModelDefinitionError(_unknown(make, parameter, offered))
    return make(**{name: offered[name]() for name in offered if name in wanted})


def load_extensions(target: Target, offered: Offer) -> dict[str, Any]:
    """Import, make and load what is in ``extensions/<name>/extension.py``, by name."""
    extensions: dict[str, Any] = {}
    for name, source in sorted(target.extensions.items()):
        module = import_file(source, (EXTENSIONS, name))
        extensions[name] = extension = cast("Any", construct(module.Extension, offered))
        extension.load()
    return extensions


def make_model(model_class: object, extensions: Mapping[str, Any], offered: Offer) -> object:
    """Make the model."""
    of_extensions = {name: each.model_args for name, each in extensions.items()}
    return construct(model_class, {**offered, **of_extensions})


def _data_dir(target: Target) -> Path:
    """Relative, as on Truss: the working directory is the folder (see ``enter``)."""
    path = Path(target.config.data_dir)
    if target.form is Form.FOLDER:
        # A folder that is mounted read-only is no obstacle: most models look into config alone.
        with suppress(OSError):
            (target.root / path).mkdir(parents=True, exist_ok=True)
    return path


def _lacks(parameter: inspect.Parameter, offered: Offer) -> bool:
    if parameter.default is not parameter.empty:
        return False
    if parameter.kind in _NAMED:
        return parameter.name not in offered
    return parameter.kind is parameter.POSITIONAL_ONLY


def _unknown(call: Callable[..., object], parameter: inspect.Parameter, offered: Offer) -> str:
    name = getattr(call, "__qualname__", repr(call))
    known = ", ".join(offered)
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return (
            f"{name}: the parameter {parameter.name!r} of its constructor cannot be given by "
            "keyword; drop the `/`"
        )
    return (
        f"{name}: nobody gives its constructor the parameter {parameter.name!r}; "
        f"give it a default, take one of {known}, "
        f"or (in a folder) add {EXTENSIONS}/{parameter.name}/extension.py"
    )
