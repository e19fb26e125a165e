"""Ends a step for good: interrupts it once, lets its cleanup run, insists when that hangs."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from streamkit._core import Cancellation, CancelToken, Interrupted, Interrupter, Loop, Timer
from streamkit.errors import StreamCancelled

logger = logging.getLogger("streamkit.streams")

R = TypeVar("R")

INSIST_EVERY: Final = 0.1  # seconds between two interrupts of code that swallows them


class Step:
    """Runs one await after the other, each of which :meth:`stop` can end.

    One interrupt, as ``Task.cancel()`` would be, so that ``finally`` blocks in user code may await.
    Code that has not come to its end ``grace`` seconds later is interrupted again and again: it
    swallowed the first one, or its cleanup hangs. (On trio a cancel is repeated at each checkpoint
    anyhow, and cleanup that awaits needs a shield.)
    """

    __slots__ = ("_grace", "_interrupter", "_loop", "_stopping", "_subject", "_timer", "running")

    def __init__(self, loop: Loop, grace: float, subject: object) -> None:
        self._loop = loop
        self._interrupter: Interrupter = loop.interrupter()
        self._grace = grace
        self._subject = subject  # what a report calls it
        self._timer: Timer | None = None
        self._stopping = False
        self.running: bool = False

    async def run(self, awaitable: Awaitable[R]) -> R:
        """Await it.

        Raises:
            Interrupted: It was ended by :meth:`stop`.
        """
        self.running = True
        try:
            return await self._interrupter.step(awaitable)
        finally:
            self._ended()

    async def run_under(self, token: CancelToken, call: Callable[[], Awaitable[R]]) -> R:
        """Await ``call()``, and end it when the token is cancelled.

        Raises:
            StreamCancelled: It was ended, or never called because the cancel came before.
        """
        token.raise_if_cancelled()  # a stop() before the await has begun would be lost
        listener = token.add_listener(self._stop)
        try:
            return await self.run(call())
        except Interrupted:
            assert token.cancellation is not None
            raise StreamCancelled(token.cancellation) from None
        finally:
            listener.remove()

    def _ended(self) -> None:
        self.running = self._stopping = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop(self, _: Cancellation) -> None:
        self.stop()

    def stop(self) -> None:
        """End the await that is running; no effect if none is."""
        if self.running and not self._stopping:
            self._stopping = True
            self._interrupter.interrupt()
            self._loop.call_next(self._give_grace)  # behind the step: most have ended by then

    def _give_grace(self) -> None:
        if self._stopping and self._timer is None:
            self._timer = self._loop.call_at(self._loop.now() + self._grace, self._report)

    def _report(self) -> None:
        logger.warning(
            "%s was cancelled %.3g s ago and goes on: it swallows its cancel or its cleanup hangs; "
            "it is cancelled again every %.3g s",
            self._subject,
            self._grace,
            INSIST_EVERY,
        )
        self._insist()

    def _insist(self) -> None:
        self._interrupter.interrupt()
        self._timer = self._loop.call_at(self._loop.now() + INSIST_EVERY, self._insist)
