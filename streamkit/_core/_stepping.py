"""Awaiting by hand: an awaitable's first step may be all of it, and nothing waits."""

from __future__ import annotations

from collections.abc import Generator
from types import coroutine
from typing import Any


def is_done(signal: object) -> bool:
    """Whether what a step waits for has come already; False where that cannot be asked."""
    done = getattr(signal, "done", None)
    return done is not None and bool(done())


@coroutine
def resume(steps: Generator[Any, Any, Any], signal: object) -> Generator[Any, Any, Any]:
    """Await the rest of ``steps``, which has just been advanced by hand and yielded ``signal``.

    Only on loops whose signals are good in any task (asyncio's futures are, trio's traps are not).
    """
    if is_done(signal):  # meanwhile; to wait for it would take a turn of the loop
        return (yield from steps)
    while True:
        try:
            yield signal
        except BaseException as error:  # noqa: ASYNC103, BLE001 - handed to who waits
            try:
                signal = steps.throw(error)
            except StopIteration as done:
                return done.value  # noqa: ASYNC104 - who waits has answered it
        else:
            return (yield from steps)
