"""Threads that a model's own code starts in a request: they are work of that request.

`Thread(target=self.model.generate, …).start()`, and a generator that reads what it streams: that is
how most published models stream. Nobody ends that thread with the request. Uncounted, the slot
would be free and the stop proved while it still computes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from streamkit._core import CancelToken, Loop, Timer, token_var
from streamkit.errors import ThreadInterrupted
from streamkit.streams._interrupt import InterruptibleCalls
from streamkit.streams._places import place_of
from streamkit.streams._thread_job import REPORT_AFTER

from ._tenure import LOST_AFTER
from ._work import Work

logger = logging.getLogger("streamkit.runner")

R = TypeVar("R")

_lasting: set[str] = set()
"""Where the model's code starts threads that serve every request: nobody waits for those."""


class OwnThread:
    """One thread, or one call on a pool of threads.

    Attributes:
        place: The line that started it, as ``file:line``.
    """

    __slots__ = ("_calls", "_free", "_loop", "_thread_id", "_timer", "_token", "place")

    def __init__(self, place: str, token: CancelToken, loop: Loop, *, interrupt: bool) -> None:
        self._token = token
        self._loop = loop
        self._calls = InterruptibleCalls() if interrupt else None
        self._free: Callable[[], object] | None = None
        self._thread_id: int | None = None
        self._timer: Timer | None = None
        self.place = place

    def run(self, call: Callable[[], R]) -> R:
        """Return ``call()``; in its thread. ``current_token()`` there is the request's."""
        self._thread_id = threading.get_ident()
        outer = token_var.set(self._token)
        try:
            return call() if self._calls is None else self._calls.run(call)
        finally:
            token_var.reset(outer)
            self._thread_id = None

    def run_thread(self, call: Callable[[], object]) -> None:
        """As :meth:`run`, for a whole thread: the interrupt is no error of its code."""
        with suppress(ThreadInterrupted):
            self.run(call)

    def begin(self, free_slot: Callable[[], object] | None) -> None:
        """It holds a slot from now on, or none. Loop thread only."""
        self._free = free_slot

    def end(self) -> None:
        """It has ended, or never began. Loop thread only."""
        if self._timer is not None:
            self._timer.cancel()
        self.free_slot()

    def free_slot(self) -> None:
        """It runs on, perhaps, and keeps nobody waiting. Loop thread only; idempotent."""
        free, self._free = self._free, None
        if free is not None:
            free()

    def free_later(self) -> None:
        """Its slot is free in a while, whatever it does, and nobody waits for its like again."""
        self._timer = self._loop.call_at(self._loop.now() + LOST_AFTER, self._lasts)

    def interrupt(self) -> None:
        """Raise in it, where that was asked for."""
        if self._calls is not None:
            self._calls.interrupt()

    def _lasts(self) -> None:
        if self._free is not None:
            logger.error("%s is waited for no longer: its slot is free", self)
        _lasting.add(self.place)
        self.free_slot()

    def __str__(self) -> str:
        return f"the thread started at {self.place}, now at {place_of(self._thread_id)},"

    def __repr__(self) -> str:
        return f"<OwnThread of {self.place}>"


class OwnThreads:
    """Those of one request. They hold its slot until they end, or the request has gone well.

    Args:
        token: The request's.
        loop: Its loop.
        interrupt: Whether a stop raises in them.
        hold_slot: Keeps the slot until what it returns is called; None where there is none.
    """

    __slots__ = ("_hold_slot", "_interrupt", "_loop", "_reported", "_threads", "_token", "_work")

    def __init__(
        self,
        token: CancelToken,
        loop: Loop,
        *,
        interrupt: bool,
        hold_slot: Callable[[], Callable[[], None] | None],
    ) -> None:
        self._token = token
        self._loop = loop
        self._interrupt = interrupt
        self._hold_slot = hold_slot
        self._threads: dict[OwnThread, Callable[[], None]] = {}  # → ends its piece of work
        self._work = Work()
        self._reported = False

    def begin(self, place: str) -> OwnThread | None:
        """One is about to start; None if those of that place last. Any thread."""
        if place in _lasting:
            return None
        thread = OwnThread(place, self._token, self._loop, interrupt=self._interrupt)
        if self._loop.is_current():
            self._begin(thread)
        else:  # before whoever starts it ends, for that is posted later
            self._loop.call_soon(lambda: self._begin(thread))
        return thread

    def ended(self, thread: OwnThread) -> None:
        """It has ended, or could not be started; any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon(lambda: self._end(thread))

    def __bool__(self) -> bool:
        """Whether one has not ended."""
        return bool(self._threads)

    async def stop(self, limit: float) -> bool:
        """Interrupt them, if that was asked for, and wait; False if that took above ``limit`` s.

        Only when the request's other work has ended: a generator that waits for what such a thread
        makes would wait for ever.

        Cancellation:
            Stops waiting.
        """
        self._strike()
        first = min(REPORT_AFTER, limit)
        if await self._work.wait_idle(first):
            return True
        for thread in () if self._reported else self._threads:
            logger.warning("%s runs on after its request was cut short; %s", thread, self._hint())
        self._reported = True
        return await self._work.wait_idle(limit - first)

    def when_stopped(self, then: Callable[[], object]) -> None:
        """Interrupt those that run; call ``then()`` when all have ended."""
        self._strike()
        self._work.when_idle(then)

    def let_go(self) -> None:
        """The request went well: nobody waits for them."""
        for thread in self._threads:
            thread.free_slot()
            thread.free_later()

    def give_up_later(self) -> None:
        """They do not end, and it may be that they never do: that would cost a slot for ever."""
        for thread in self._threads:
            thread.free_later()

    def _begin(self, thread: OwnThread) -> None:
        self._threads[thread] = self._work.begin()
        thread.begin(self._hold_slot())

    def _end(self, thread: OwnThread) -> None:
        thread.end()
        self._threads.pop(thread)()

    def _strike(self) -> None:
        for thread in self._threads:
            thread.interrupt()

    def _hint(self) -> str:
        if self._interrupt:
            return "it was interrupted, which takes effect at its next line of Python"
        return "have it ask current_token(), or let it be interrupted (--interrupt-threads on)"

    def __repr__(self) -> str:
        return f"<OwnThreads {list(self._threads)!r}>"
