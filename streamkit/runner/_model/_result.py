"""What came out of a model: a value, a stream, or a response that it made itself."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeGuard

from streamkit.streams import CancellableStream


@dataclass(frozen=True, slots=True)
class Value:
    """It was returned whole."""

    value: object


@dataclass(frozen=True, slots=True)
class Stream:
    """It comes in chunks; whoever sends them drives it, and closes it."""

    items: CancellableStream[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """It is a response of Starlette's; its slot is held until it was sent."""

    response: Any


Result: TypeAlias = Value | Stream | Answer


_PLAIN: Final = frozenset(
    {dict, list, tuple, str, bytes, int, float, bool, type(None)},
)


def is_plain(result: object) -> bool:
    """Whether it is one of the usual values: then nobody need ask what else it might be."""
    return type(result) in _PLAIN


def is_response(result: object) -> bool:
    """Whether it is an answer already."""
    # Where nobody imported Starlette there is no response: we never import it ourselves.
    response = getattr(sys.modules.get("starlette.responses"), "Response", None)
    return response is not None and isinstance(result, response)


def is_stream(result: object) -> TypeGuard[AsyncIterable[Any] | Iterator[Any]]:
    """Whether it comes in chunks: generators, and what engines return in their place."""
    # Not Iterable: a list, a dictionary and a string are values.
    return isinstance(result, AsyncIterable | Iterator)


def as_async_iterator(items: AsyncIterable[Any]) -> AsyncIterator[Any]:
    """Its iterator; an object that has only ``__aiter__`` makes one."""
    return items if isinstance(items, AsyncIterator) else aiter(items)


def is_awaitable(result: object) -> TypeGuard[Awaitable[object]]:
    """Whether it has to be awaited first: what a sync wrapper around a coroutine returns."""
    return isinstance(result, Awaitable)
