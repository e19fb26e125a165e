"""Threads that a model's coroutines wait for: part of their request until they have ended.

A coroutine that awaits ``asyncio.to_thread(compute)`` is cut short at once, and ``compute()`` runs
on. Uncounted, its slot would be free, and its end be called proved, while the next request computes
beside it. Nobody else says when such a call has ended: asyncio forgets it, and so does anyio, whose
shield holds back its own cancels and no other.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial, wraps
from typing import Any, Final

import anyio.to_thread

from streamkit._core import Timer, current_loop
from streamkit.streams._interrupt import InterruptibleCalls
from streamkit.streams._places import place_of

from ._dropped import Owner, owner_var

logger = logging.getLogger("streamkit.runner")

REPORT_AFTER: Final = 0.5  # seconds, as for the threads that are ours
_anyio_run_sync: Final = anyio.to_thread.run_sync


def count_threads() -> None:
    """Count them in the running loop, until its end. Idempotent.

    Counted are the threads of ``asyncio.to_thread()``, of ``run_in_executor()`` and of
    ``anyio.to_thread.run_sync()``, which Starlette's ``run_in_threadpool()`` is as well; jobs of a
    pool of processes are not.
    """
    anyio.to_thread.run_sync = _run_sync
    loop: Any = getattr(current_loop(), "loop", None)  # trio has none, and no executors
    if loop is None or hasattr(loop.run_in_executor, "counts"):
        return
    # By its name: to look into `__dict__` makes each attribute of the loop slower to read (3.11).
    with contextlib.suppress(AttributeError):  # asyncio's and uvloop's take it
        loop.run_in_executor = _counting(loop.run_in_executor)


class _Call:
    """One call in a thread: whoever waits for it may leave before its end."""

    __slots__ = (
        "_call",
        "_calls",
        "_end",
        "_left",
        "_lock",
        "_loop",
        "_owner",
        "_thread_id",
        "_timer",
    )

    def __init__(self, call: Callable[[], Any], owner: Owner) -> None:
        self._call = call
        self._owner = owner
        self._calls = InterruptibleCalls() if owner.interrupts_threads else None
        self._loop = current_loop()
        self._lock = threading.Lock()
        self._left = False
        self._thread_id: int | None = None  # set while it runs
        self._end: Callable[[], object] | None = None
        self._timer: Timer | None = None

    def __call__(self) -> Any:
        with self._lock:
            if self._left:  # before it began: nobody will see what it returns
                return None
            self._thread_id = threading.get_ident()
        try:
            return self._call() if self._calls is None else self._calls.run(self._call)
        finally:
            with self._lock:
                self._thread_id = None
            if self._end is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon(self._ended)

    def leave(self) -> None:
        """In the loop: nobody waits for it any more."""
        with self._lock:
            self._left = True
            if self._thread_id is None:
                return
            self._end = self._owner.begin_dropped()
        if self._calls is not None:
            self._calls.interrupt()
        self._timer = self._loop.call_at(self._loop.now() + REPORT_AFTER, self._report)

    def _ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._end is not None:
            self._end()

    def _report(self) -> None:
        logger.warning(
            "%s, which nobody waits for any more, still runs in its thread after %.3g s, at %s; "
            "its request is over when it has ended: ask current_token() inside long steps",
            _name(self._call),
            REPORT_AFTER,
            place_of(self._thread_id),
        )


def _name(call: Any) -> str:
    while isinstance(call, partial):
        # asyncio.to_thread() has its context call the function.
        in_context = call.args and isinstance(getattr(call.func, "__self__", None), Context)
        call = call.args[0] if in_context else call.func
    return getattr(call, "__qualname__", type(call).__qualname__)


def _counting(run_in_executor: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run_in_executor)
    def counted(executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        owner = owner_var.get()
        # Others than threads get what they run pickled.
        if owner is None or not isinstance(executor, ThreadPoolExecutor | None):
            return run_in_executor(executor, func, *args)
        call = _Call(partial(func, *args), owner)

        def leave(_: object) -> None:
            call.leave()

        future = run_in_executor(executor, call)
        # Heard before its waiter goes on: a future tells those first who came first.
        future.add_done_callback(leave)
        return future

    counted.counts = True  # type: ignore[attr-defined]
    return counted


@wraps(_anyio_run_sync)
async def _run_sync(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
    owner = owner_var.get()
    if owner is None:
        return await _anyio_run_sync(func, *args, **options)
    call = _Call(partial(func, *args), owner)
    try:
        return await _anyio_run_sync(call, **options)
    finally:
        call.leave()
