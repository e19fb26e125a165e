"""A place where a thread blocks on purpose, without keeping the virtual clock from going on."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Final, Self

from ._clock import VirtualTimeLoop

LIMIT: Final = 30.0  # real seconds; a thread must not outlive the test that forgot it


class ThreadGate:
    """Where threads wait until the test opens it: a slow step whose length the test decides.

    Threads that wait at a gate do not hold a virtual clock, and hold it again from the moment of
    :meth:`open`: the order of events is the same in each run. Only for threads that hold it before
    (executors, ``anyio.to_thread``, streamkit's own). As a context manager it opens at the end.

    Create it in the event loop; works on real loops, too.
    """

    __slots__ = ("_event", "_lock", "_loop", "_opened", "_reached", "_virtual", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._virtual = self._loop if isinstance(self._loop, VirtualTimeLoop) else None
        self._reached = asyncio.Event()
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._opened = False
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many threads wait here now."""
        return 0 if self._opened else self._waiting

    async def wait_reached(self) -> None:
        """Return once the first thread waits here.

        Cancellation:
            Stops waiting.
        """
        await self._reached.wait()

    def wait(self) -> None:
        """Block the calling thread until the gate is open.

        Raises:
            TimeoutError: It was not opened within 30 real seconds.
        """
        with self._lock:
            if self._opened:
                return
            self._waiting += 1
            self._loop.call_soon_threadsafe(self._reached.set)
            if self._virtual:
                self._virtual.thread_parked()
        if not self._event.wait(LIMIT):
            self.open()
            raise TimeoutError(f"nobody opened the gate within {LIMIT:g} s of real time")

    def open(self) -> None:
        """Let all threads through, now and later. Legal from any thread, any number of times."""
        with self._lock:
            if self._opened:
                return
            self._opened = True
            # Now, not when they have woken up: until then the clock could run ahead of them.
            if self._virtual:
                for _ in range(self._waiting):
                    self._virtual.thread_started()
        self._event.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.open()

    def __repr__(self) -> str:
        return f"<ThreadGate {'open' if self._opened else 'shut'}, {self.waiting} waiting>"
