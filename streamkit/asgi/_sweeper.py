"""One task for the whole process that looks for what no event tells; it lives while requests do."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

import anyio

from streamkit._core import current_loop, now

from ._owner import RequestOwner

logger = logging.getLogger("streamkit.asgi")

SWEEP_INTERVAL: Final = 0.5  # seconds; 1,000 requests cost about 0.1 ms a sweep, nothing per token
LAG_LIMIT: Final = 0.25  # seconds; user code that blocks the loop this long delays every cancel


class Sweeper:
    """Checks the live requests at an interval.

    Never a task or a timer per chunk: one stamp before each send, read from here.

    Attributes:
        blocked_for: Seconds, in all, by which sweeps came late because something blocked the loop.
    """

    __slots__ = ("_interval", "_live", "_running", "_write_stall", "blocked_for")

    def __init__(
        self, live: Iterable[RequestOwner], *, write_stall: float, interval: float = SWEEP_INTERVAL
    ) -> None:
        self._live = live
        self._write_stall = write_stall
        self._interval = interval
        self._running = False
        self.blocked_for = 0.0

    def wake(self) -> None:
        """There is a request to look after."""
        if not self._running:
            self._running = True
            current_loop().spawn(self._sweep, "streamkit sweeper")

    async def _sweep(self) -> None:
        try:
            while requests := list(self._live):
                for request in requests:
                    request.check(self._write_stall)
                due = now() + self._interval
                await anyio.sleep_until(due)
                self._note_lag(now() - due)
        finally:
            self._running = False

    def _note_lag(self, late: float) -> None:
        if late < LAG_LIMIT:
            return
        self.blocked_for += late
        logger.warning(
            "the event loop was blocked for %.3g s: no client that left could be noticed; "
            "move blocking calls into a thread",
            late,
        )
