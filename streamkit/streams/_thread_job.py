"""Sync user code on a worker thread, seen from the loop: started, told to stop, timed, ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio
import anyio.lowlevel
from anyio._core._eventloop import threadlocals

from streamkit._core import CancelToken, Loop, Timer, current_loop, hold, token_var
from streamkit.errors import StreamCancelled, ThreadInterrupted

from ._interrupt import InterruptibleCalls
from ._places import place_of
from ._workers import OneThread, Role, idle_threads, run_on_worker

logger = logging.getLogger("streamkit.streams")

R = TypeVar("R")

REPORT_AFTER: Final = 0.5  # seconds; far above a decode step, and what a person takes for a hang
_HINTS: Final = {
    False: "ask current_token() inside long steps, or let it be interrupted "
    "(interrupt=True; for a model class --interrupt-threads on)",
    True: "it was interrupted, which takes effect at its next line of Python",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadStatistics:
    """What the worker threads of this process are doing.

    Attributes:
        running: Threads that are at work, one for each sync generator or call.
        idle: Threads parked for reuse.
        abandoned: Of ``running``, those whose owner has given up waiting for their end.
        blocked_cancels: Cancels so far that user code kept waiting longer than ``report_after``.
        longest_block: The longest wait of a cancel for user code so far, in seconds.
    """

    running: int
    idle: int
    abandoned: int
    blocked_cancels: int
    longest_block: float


class _Books:
    """The counts of the whole process; the lock is taken only where a cancel met running code."""

    __slots__ = ("abandoned", "blocked", "lock", "longest")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.abandoned = 0
        self.blocked = 0
        self.longest = 0.0


_books: Final = _Books()
_running: dict[ThreadJob, None] = {}  # changed in single steps that need no lock


def thread_statistics() -> ThreadStatistics:
    """Count the worker threads of this process, and the cancels that had to wait for them."""
    with _books.lock:
        return ThreadStatistics(
            running=len(_running),
            idle=idle_threads(),
            abandoned=_books.abandoned,
            blocked_cancels=_books.blocked,
            longest_block=_books.longest,
        )


class ThreadJob:
    """One run of ``work()`` on a worker thread. Belongs to the loop it was started in.

    ``work`` must not raise. What it calls of the user's goes through :meth:`call`. All methods but
    :meth:`call` and :meth:`post` are for the loop's thread.

    Attributes:
        ended: Set when the thread has left ``work``.
        doing: What the user's code is doing, for the report: ``next()``, ``close()``.
    """

    __slots__ = (
        "_abandoned",
        "_home",
        "_interruptible",
        "_loop",
        "_name",
        "_on_end",
        "_report_after",
        "_stopped_at",
        "_thread_id",
        "_timer",
        "_work",
        "doing",
        "ended",
    )

    def __init__(
        self,
        work: Callable[[], object],
        *,
        name: str,
        on_end: Callable[[], object],
        report_after: float = REPORT_AFTER,
        interrupt: bool = False,
    ) -> None:
        if report_after <= 0:
            raise ValueError(f"report_after must be above 0 seconds, got {report_after!r}")
        self._work = work
        self._name = name
        self._on_end = on_end
        self._report_after = report_after
        self._interruptible = InterruptibleCalls() if interrupt else None
        self._loop: Loop = current_loop()
        self._home = anyio.lowlevel.current_token()
        self._thread_id: int | None = None
        self._stopped_at: float | None = None
        self._timer: Timer | None = None
        self._abandoned = False
        self.doing = "its code"
        self.ended = anyio.Event()

    def start(self, token: CancelToken, role: Role, thread: OneThread | None = None) -> None:
        """Run it, in a copy of the caller's context in which ``current_token()`` is ``token``."""
        run = run_on_worker if thread is None else thread.run
        context = copy_context()
        context.run(token_var.set, token)
        self._loop.thread_started()
        _running[self] = None
        try:
            run(lambda: context.run(self._main), role=role)
        except BaseException:
            del _running[self]
            self._loop.thread_parked()
            raise

    def call(self, call: Callable[[], R]) -> R:
        """Return ``call()``, interrupted by :meth:`stop` if that was asked for. Worker's thread."""
        return call() if self._interruptible is None else self._interruptible.run(call)

    def post(self, call: Callable[[], object]) -> bool:
        """Have the loop run ``call()``; False when the loop is closed. Any thread."""
        try:
            self._loop.call_soon(call)
        except RuntimeError:
            return False
        return True

    def stop(self, grace: float) -> None:
        """The work was told to stop: interrupt it, time it, and wait for its end in the background.

        Whoever shuts down waits for it, ``grace`` seconds at most; then it is given up.
        """
        if self._stopped_at is not None or self.ended.is_set():
            return
        self._stopped_at = now = self._loop.now()
        self._timer = self._loop.call_at(now + self._report_after, self._report)
        if self._interruptible is not None:
            self._interruptible.interrupt()
        hold(
            lambda: self._await_end(grace),
            name=f"the end of {self._name} in its thread",
            limit=grace + 1.0,
        )

    async def wait_ended(self, grace: float) -> bool:
        """Wait for the end, shielded; False when it did not come within ``grace`` seconds."""
        with anyio.move_on_after(grace, shield=True):
            await self.ended.wait()
        return self.ended.is_set()

    # -- the loop's side -----------------------------------------------------------------------

    async def _await_end(self, grace: float) -> None:
        if await self.wait_ended(grace):
            return
        self._abandoned = True
        with _books.lock:
            _books.abandoned += 1
        logger.error(
            "%s was given up: %.3g s after its cancel its thread still runs, at %s",
            self._name,
            grace,
            place_of(self._thread_id),
        )

    def _report(self) -> None:
        self._timer = None
        with _books.lock:
            _books.blocked += 1
        logger.warning(
            "%s keeps its cancel waiting: after %.3g s it is still in %s, at %s; %s",
            self._name,
            self._report_after,
            self.doing,
            place_of(self._thread_id),
            _HINTS[self._interruptible is not None],
        )

    def _finish(self) -> None:
        self.ended.set()
        if self._stopped_at is not None:
            self._settle(self._loop.now() - self._stopped_at)
        self._on_end()

    def _settle(self, blocked: float) -> None:
        with _books.lock:
            _books.longest = max(_books.longest, blocked)
            _books.abandoned -= self._abandoned
        if self._timer is not None:
            self._timer.cancel()
        else:  # it was reported
            logger.warning("%s came back %.3f s after its cancel", self._name, blocked)

    # -- the worker's side ---------------------------------------------------------------------

    def _main(self) -> None:
        self._thread_id = threading.get_ident()
        # anyio has no public way to say so of a thread that it has not started; without it
        # `anyio.from_thread.run(request.is_disconnected)` in user code raises.
        threadlocals.current_token = self._home
        try:
            self._work()
        finally:
            del threadlocals.current_token
            self._thread_id = None  # what runs on this thread next is not ours to report
            del _running[self]
            self.post(self._finish)
            self._loop.thread_parked()

    def __repr__(self) -> str:
        if self.ended.is_set():
            return f"<ThreadJob {self._name} ended>"
        return f"<ThreadJob {self._name} {'running' if self._stopped_at is None else 'stopping'}>"


def report_late_error(name: str, error: BaseException) -> None:
    """Log what cancelled work raised: its caller has gone with ``StreamCancelled`` already."""
    if not isinstance(error, StreamCancelled | ThreadInterrupted | GeneratorExit):
        logger.warning("%s failed after it was told to stop", name, exc_info=error)
