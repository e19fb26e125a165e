"""Work that outlives the request which started it: held strongly, limited in time, awaited."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from ._loop import Loop
from ._running import current_loop

logger = logging.getLogger("streamkit.cancel")

HOLD_LIMIT: Final = (
    10.0  # seconds; an abort that takes longer is a defect to report, not to wait for
)


class _Entry:
    __slots__ = ("done", "loop", "name")

    def __init__(self, loop: Loop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.done = anyio.Event()


_entries: dict[_Entry, None] = {}


def hold(work: Callable[[], Awaitable[object]], *, name: str, limit: float = HOLD_LIMIT) -> None:
    """Start ``work`` as a task of its own that no cancel of its creator can reach.

    An abort that is awaited in a ``finally`` dies at its first await when the scope around it is
    cancelled, and even a shield does not protect it from ``Task.cancel()`` at a server's shutdown
    (measured). A task of its own survives both. Its error is logged; after ``limit`` seconds it is
    cancelled, and that is logged too.

    Call it from the event loop's thread.
    """
    loop = current_loop()
    entry = _Entry(loop, name)
    _entries[entry] = None

    async def run() -> None:
        try:
            with anyio.move_on_after(limit) as scope:
                await work()
            if scope.cancelled_caught:
                logger.error("%s did not end within %.3g s and was given up", name, limit)
        except (Exception, SystemExit):  # asyncio would end the process with the second
            logger.exception("%s failed", name)
        finally:
            _entries.pop(entry, None)
            entry.done.set()

    loop.spawn(run, name)


def held() -> list[str]:
    """Names of the held work of the running loop that has not ended."""
    return [entry.name for entry in _entries if entry.loop.is_current()]


async def wait_held(timeout: float) -> list[str]:
    """Wait until nothing is held in this loop; return the names left after ``timeout`` seconds.

    Cancellation:
        Stops waiting. The held work goes on.
    """
    with anyio.move_on_after(timeout):
        while waiting := [entry for entry in _entries if entry.loop.is_current()]:
            await waiting[0].done.wait()
    return held()
