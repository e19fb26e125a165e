"""Looks, at an interval, for what no event tells: one timer for all requests that are alive."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final, Protocol

from streamkit._core import Loop, Timer, current_loop

logger = logging.getLogger("streamkit.asgi")

SWEEP_INTERVAL: Final = 0.5  # seconds; whatever the number of tokens
LAG_LIMIT: Final = 0.25  # seconds; user code that blocks the loop this long delays every cancel


class Watched(Protocol):
    """What is looked at: a request, a websocket."""

    def check(self, now: float, write_stall: float, silent_for: float) -> None:
        """Look for what no event tells: a write blocked, a peer silent for so many seconds."""


class Sweeper:
    """Checks the live requests; falls asleep at the first look that finds none.

    Not with the last request: one after the other, each would then start and stop a timer.

    Never a task or a timer per chunk: one stamp before each send, read from here.

    Attributes:
        blocked_for: Seconds, in all, by which sweeps came late because something blocked the loop.
    """

    __slots__ = (
        "_due",
        "_interval",
        "_live",
        "_loop",
        "_silent_for",
        "_timer",
        "_write_stall",
        "blocked_for",
    )

    def __init__(
        self,
        live: Collection[Watched],
        *,
        loss_bound: float,
        write_stall: float | None = None,
        interval: float = SWEEP_INTERVAL,
    ) -> None:
        self._live = live
        # It is a bound: what comes up to it before the next look counts as over it.
        self._silent_for = loss_bound - interval
        self._write_stall = self._silent_for if write_stall is None else write_stall
        self._interval = interval
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self._due = 0.0
        self.blocked_for: float = 0.0

    def wake(self) -> None:
        """There is a request to look after."""
        # An app may outlive its loop, and the timer with it: test clients make one a request.
        if self._timer is None or self._loop is None or not self._loop.is_current():
            self._loop = current_loop()
            self._arm(self._loop)

    def _arm(self, loop: Loop) -> None:
        self._due = loop.now() + self._interval
        self._timer = loop.call_at(self._due, self._sweep)

    def _sweep(self) -> None:
        assert self._loop is not None
        now = self._loop.now()
        self._note_lag(now - self._due)
        for request in list(self._live):
            request.check(now, self._write_stall, self._silent_for)
        if self._live:
            self._arm(self._loop)
        else:
            self._timer = None

    def _note_lag(self, late: float) -> None:
        if late < LAG_LIMIT:
            return
        self.blocked_for += late
        logger.warning(
            "the event loop was blocked for %.3g s: no client that left could be noticed; "
            "move blocking calls into a thread",
            late,
        )
