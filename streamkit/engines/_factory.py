"""Engines by name and options as text: what a command line, an environment or a file can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from . import _fake, _llama_cpp, _sglang, _transformers, _triton, _trtllm, _upstream, _vllm
from ._base import Engine
from ._known import KnownEngine
from ._options import Option, parse_options

_ENGINES: Final[Mapping[str, KnownEngine]] = {
    known.name: known
    for known in (
        _fake.KNOWN,
        _llama_cpp.KNOWN,
        _sglang.KNOWN,
        _transformers.KNOWN,
        _triton.KNOWN,
        _trtllm.KNOWN,
        _upstream.KNOWN,
        _vllm.KNOWN,
    )
}


def engine_names() -> tuple[str, ...]:
    """What :func:`build` knows."""
    return tuple(sorted(_ENGINES))


def engine_options(name: str) -> tuple[Option, ...]:
    """The options of an engine, in the order in which they should be shown.

    Raises:
        ValueError: There is no such engine; the message lists those that there are.
    """
    return tuple(known_engine(name).options.values())


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
    known = known_engine(name)
    values: dict[str, Any] = parse_options(name, known.options, options or {})
    return known.make(**values)


def known_engine(name: str) -> KnownEngine:
    """What is known of an engine, installed or not.

    Raises:
        ValueError: There is no such engine; the message lists those that there are.
    """
    if name not in _ENGINES:
        raise ValueError(f"unknown engine {name!r}; known: {', '.join(engine_names())}")
    return _ENGINES[name]
