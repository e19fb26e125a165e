"""`streamkit serve`: its flags, made from the settings, and what is wrong with them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from streamkit.engines import engine_names, engine_options
from streamkit.errors import MissingPackage, ModelLoadFailed, TargetNotFound

from .settings import ENV_PREFIX, OFF, Settings, SettingsError, flag_of, load

_DESCRIPTION: Final = """\
Serves a model class, or an engine, over HTTP. When a client leaves, in whatever phase its request
is, the work is told at once, and asked for proof that it stopped.

TARGET is a model class as Truss has it: package.module:Class, a .py file with a class Model, or a
folder with config.yaml and model/model.py. Without it an engine is served.

Each setting is a flag, a variable or a key of the file: --max-queued 10, STREAMKIT_MAX_QUEUED=10,
max_queued = 10. Flags win over variables, variables over the file, the file over the defaults.
"""
_EPILOG: Final = """\
The first line on standard output, once it can answer: streamkit: ready on http://HOST:PORT
SIGTERM and SIGINT drain; a second one ends the grace, a third one the process.

exit status: 0 after a drain, 1 it could not start, the model did not load, or it was ended by
force, 2 wrong usage
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``streamkit serve``; return its exit status."""
    parser = make_parser()
    given = vars(parser.parse_args(arguments))
    target: str | None = given.pop("target")
    if target is not None and (given["engine"] or given["engine_options"]):
        engine = "--engine" if given["engine"] else "--engine-option"
        parser.error(f"either a model or an engine is served: leave out {engine}, or {target!r}")
    file = given.pop("config") or os.environ.get(ENV_PREFIX + "CONFIG")
    flags = {name: value for name, value in given.items() if value is not None}
    try:
        settings = load(flags, os.environ, Path(file) if file else None)
    except SettingsError as error:
        return _fail(str(error), 2)
    return _start(settings, target)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser: one flag for each field of the settings."""
    parser = argparse.ArgumentParser(
        prog="streamkit serve",
        usage="streamkit serve [TARGET | --engine NAME] [--host HOST] [--port PORT] [OPTION …]",
        description=_DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("target", nargs="?", metavar="TARGET", help=argparse.SUPPRESS)
    parser.add_argument(
        "--config", metavar="FILE", help=f"A TOML file with settings [{ENV_PREFIX}CONFIG]."
    )
    for name, field in Settings.model_fields.items():
        text = f"{field.description} [{shown(field.default)}]".replace("%", "%%")
        if name == "engine_options":
            parser.add_argument(
                flag_of(name), dest=name, action=_KeyValue, metavar="KEY=VALUE", help=text
            )
        else:
            parser.add_argument(
                flag_of(name), dest=name, metavar=_metavar(name, field.annotation), help=text
            )
    return parser


def shown(default: object) -> str:
    """A default as a user would write it."""
    if default is None:
        return OFF
    if default == {}:
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _metavar(name: str, kind: object) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    parts = set(_parts(kind))
    return "SECONDS" if float in parts else "N" if int in parts else name.upper()


def _parts(kind: object) -> Iterator[object]:
    yield kind
    for part in get_args(kind):
        yield from _parts(part)


def _epilog() -> str:
    lines = [_EPILOG]
    for engine in engine_names():
        lines.append(f"options of engine {engine}:")
        for option in engine_options(engine):
            default = f" [{'none' if option.default is None else option.default}]"
            lines.append(f"  {option.name:24}{option.help}{default}")
    return "\n".join(lines)


class _KeyValue(argparse.Action):
    """Collects ``--engine-option KEY=VALUE``, which may be given many times."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        key, separator, value = str(values).partition("=")
        if not (key and separator):
            raise argparse.ArgumentError(self, f"expected KEY=VALUE, got {values!r}")
        options: dict[str, str] = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**options, key: value})


def _start(settings: Settings, target: str | None) -> int:
    # Only now: a wrong flag is answered without waiting for a web framework.
    from ._process import run  # noqa: PLC0415
    from ._protocols import NotInstalled  # noqa: PLC0415
    from ._sockets import CannotListen, listen  # noqa: PLC0415
    from .app import Application, build_service  # noqa: PLC0415

    try:
        app = Application(build_service(settings, target), settings, hears_signals=False)
    except (ValueError, MissingPackage, TargetNotFound) as error:  # no such engine, option, model
        return _fail(str(error), 2)
    except ModelLoadFailed as error:
        return _fail(str(error), 1)
    try:
        with listen(settings) as sock:
            return run(app, settings, sock)
    except CannotListen as error:
        return _fail(str(error), 1)
    except NotInstalled as error:
        return _fail(str(error), 2)


def _fail(message: str, status: int) -> int:
    for line in message.splitlines():
        sys.stderr.write(f"streamkit: {line}\n")
    return status
