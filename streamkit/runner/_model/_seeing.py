"""Streams of a model that asks: it has time to act on a cancel, and its token tells it at once.

What is read of a stream hangs on a token that is cancelled when that time is over. The code that
makes it has to see the request's own: an engine may hang on that.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Generator, Iterator
from typing import Any, Self

from streamkit._core import CancelToken, token_var

from ._result import as_async_iterator


def seeing(
    token: CancelToken, items: AsyncIterable[Any] | Iterator[Any]
) -> AsyncIterable[Any] | Iterator[Any]:
    """Return the same items; in the code that makes them ``current_token()`` is ``token``."""
    if isinstance(items, AsyncIterable):
        return _Seeing(token, as_async_iterator(items))
    thread: Any = _seeing_in_thread(token, items)
    thread.__qualname__ = getattr(items, "__qualname__", type(items).__qualname__)  # for reports
    return thread


class _Seeing:
    __slots__ = ("_items", "_token")

    def __init__(self, token: CancelToken, items: AsyncIterator[Any]) -> None:
        self._token = token
        self._items = items

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Any]:
        if token_var.get() is not self._token:  # whoever drives it puts back what was there
            token_var.set(self._token)
        return self._items.__anext__()

    async def aclose(self) -> None:
        if (aclose := getattr(self._items, "aclose", None)) is not None:
            await aclose()

    def __repr__(self) -> str:
        return repr(self._items)


def _seeing_in_thread(token: CancelToken, items: Iterator[Any]) -> Generator[Any, Any, None]:
    token_var.set(token)  # in the thread's own context
    yield from items
