"""Reads a stream whole, in one place, so that nothing of ours has to run for each item."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from streamkit._core import current_loop

from ._insist import Step
from ._stream import CLOSE_GRACE, CancellableStream
from ._threaded import ThreadedGenerator

T = TypeVar("T")
R = TypeVar("R")


def drive(
    stream: CancellableStream[T] | ThreadedGenerator[T],
    consume: Callable[[AsyncIterator[T]], Awaitable[R]],
) -> Awaitable[R]:
    """Hand the items to ``consume`` and end it, wherever it waits, when the stream is cancelled.

    The stream is closed when this returns.

    Raises:
        StreamCancelled: It was cut short.

    Cancellation:
        Cancels the stream.
    """
    if isinstance(stream, CancellableStream):
        return stream.drive(consume)
    return _drive_thread(stream, consume)


async def _drive_thread(
    stream: ThreadedGenerator[T], consume: Callable[[AsyncIterator[T]], Awaitable[R]]
) -> R:
    step = Step(current_loop(), CLOSE_GRACE, stream)
    try:
        return await step.run_under(stream.token, lambda: consume(stream))
    finally:
        await stream.aclose()
