"""Engines by name and options as text: what a command line, an environment or a file can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import _fake, _vllm
from ._base import Engine
from ._options import Option, parse_options


@dataclass(frozen=True, slots=True)
class _Known:
    make: Callable[..., Engine]
    options: Mapping[str, Option]


_ENGINES: Final[Mapping[str, _Known]] = {
    "fake": _Known(_fake.FakeEngine, _fake.OPTIONS),
    "vllm": _Known(_vllm.from_options, _vllm.OPTIONS),
}


def engine_names() -> tuple[str, ...]:
    """What :func:`build` knows."""
    return tuple(sorted(_ENGINES))


def engine_options(name: str) -> tuple[Option, ...]:
    """The options of an engine, in the order in which they should be shown.

    Raises:
        ValueError: There is no such engine; the message lists those that there are.
    """
    return tuple(_known(name).options.values())


def build(name: str, options: Mapping[str, str] | None = None) -> Engine:
    """Return an engine.

    Args:
        name: One of :func:`engine_names`.
        options: Its options as text: ``{"slots": "16", "lie": "ignore_abort"}``.

    Raises:
        ValueError: Unknown engine, unknown option, or a value that is out of its range; the message
            says what there is, or what was expected.
        MissingPackage: The engine is a package of its own that is not installed.
    """
    known = _known(name)
    values: dict[str, Any] = parse_options(name, known.options, options or {})
    return known.make(**values)


def _known(name: str) -> _Known:
    if name not in _ENGINES:
        raise ValueError(f"unknown engine {name!r}; known: {', '.join(engine_names())}")
    return _ENGINES[name]
