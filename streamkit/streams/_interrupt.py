"""Ends Python code that runs in another thread, between two bytecodes, and hits nothing else."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from streamkit.errors import ThreadInterrupted, UsageBug

R = TypeVar("R")

_nesting = threading.local()


class InterruptibleCalls:
    """Runs calls one after the other; :meth:`interrupt` ends the one that is running.

    CPython can set an exception that another thread raises at its next bytecode. That exception
    knows no target but the thread, so that set a moment too late it would hit whatever the thread
    does next: our own code, or another request on a reused thread. Hence the handshake: it is set
    only while a call is known to be running, under the lock that the call must take to leave, and
    on leaving a pending one is made to strike before anything else runs.

    One exception is set in its lifetime, so there are no two that could overtake one another.

    Raises:
        UsageBug: The interpreter is not CPython.
    """

    __slots__ = ("_interrupted", "_lock", "_thread_id")

    def __init__(self) -> None:
        if sys.implementation.name != "cpython":
            raise UsageBug(
                f"interrupt=True needs CPython, this is {sys.implementation.name}: "
                "ask current_token() in long steps instead"
            )
        # Reentrant, because the exception may strike while we hold it in _leave(): then it stays
        # locked, which hurts nobody, for interrupt() never takes it again.
        self._lock = threading.RLock()
        self._thread_id: int | None = None  # set while a call is running
        self._interrupted = False

    def run(self, call: Callable[[], R]) -> R:
        """Return ``call()``.

        A call inside such a call, in the same thread, is only interrupted together with the outer
        one: both would share the thread's one pending exception.

        Raises:
            ThreadInterrupted: It was interrupted, now or before it began.
        """
        if getattr(_nesting, "inside", False):
            return call()
        try:
            try:
                self._enter()
                return call()
            finally:
                self._leave()
        except ThreadInterrupted:
            self._leave()  # the first time may have been cut in two; it cannot strike again
            raise

    def interrupt(self) -> None:
        """End the call that is running, or the next one before it begins; only once.

        From one thread only (the event loop's). A call in C ends when it returns to Python.
        """
        if self._interrupted:
            return
        with self._lock:
            self._interrupted = True
            if self._thread_id is not None:
                _strike(self._thread_id)

    def _enter(self) -> None:
        with self._lock:
            if self._interrupted:
                raise ThreadInterrupted("interrupted before it began")
            _nesting.inside = True
            self._thread_id = threading.get_ident()

    def _leave(self) -> None:
        with self._lock:
            self._thread_id = None
        # From here on none can be set; a pending one strikes at the next jump backwards. It could
        # be taken back instead (NULL), but that leaves CPython 3.11 and 3.12 with every thread
        # looking for it at each jump, for ever: measured, loops take up to 1.6 times as long.
        for _ in range(2):
            pass
        _nesting.inside = False

    def __repr__(self) -> str:
        state = "interrupted" if self._interrupted else "running" if self._thread_id else "idle"
        return f"<InterruptibleCalls {state}>"


def _strike(thread_id: int) -> None:
    import ctypes  # noqa: PLC0415 - costs 5 ms, and only who opts in needs it

    exception = ctypes.py_object(ThreadInterrupted)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), exception)
