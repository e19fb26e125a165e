"""Notices that a model's code starts a thread, or hands a call to a pool of threads.

Python has no hook for that, so `Thread.start` and `ThreadPoolExecutor.submit` are wrapped. What a
library starts for itself (a progress bar's monitor, a pool's workers) is not looked at: only what
a line of the model's own files starts, in a request. What a coroutine waits for is counted in
``_threads``.
"""

from __future__ import annotations

import inspect
import os
import sysconfig
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, ParamSpec, TypeVar

from ._dropped import owner_var
from ._own_threads import OwnThread, OwnThreads

P = ParamSpec("P")
R = TypeVar("R")

_paths = sysconfig.get_paths()
_INSTALLED: Final = (
    *(_paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[2]) + os.sep,
)
_start: Final = threading.Thread.start
_submit: Final = ThreadPoolExecutor.submit
_root = os.sep  # a process is one model's, see ``enter``


def notice_threads(root: Path) -> None:
    """From now on a request owns the threads that code below ``root`` starts in it."""
    global _root  # noqa: PLW0603 - as those that are replaced
    _root = str(root) + os.sep
    if threading.Thread.start is _start:
        threading.Thread.start = _started
        ThreadPoolExecutor.submit = _submitted


def _started(self: threading.Thread) -> None:
    begun = _begin(inspect.currentframe())
    if begun is None:
        _start(self)
        return
    threads, thread = begun
    run = self.run

    def run_owned() -> None:
        try:
            thread.run_thread(run)
        finally:
            del self.run  # it refers to the thread that it is of
            threads.ended(thread)

    self.run = run_owned
    try:
        _start(self)
    except BaseException:
        threads.ended(thread)
        raise


def _submitted(
    self: ThreadPoolExecutor, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Future[R]:
    begun = _begin(inspect.currentframe())
    if begun is None:
        return _submit(self, fn, *args, **kwargs)
    threads, thread = begun
    try:
        future: Future[R] = _submit(self, thread.run, partial(fn, *args, **kwargs))
    except BaseException:
        threads.ended(thread)
        raise
    # Also for one that is cancelled before its turn: then nothing of it is ever called.
    future.add_done_callback(lambda _: threads.ended(thread))
    return future


def _begin(wrapper: FrameType | None) -> tuple[OwnThreads, OwnThread] | None:
    owner = owner_var.get()
    if owner is None or wrapper is None or (place := _place(wrapper.f_back)) is None:
        return None
    threads = owner.own_threads()
    thread = threads.begin(place)
    return None if thread is None else (threads, thread)


def _place(frame: FrameType | None) -> str | None:
    """The line that calls, if that is below a root."""
    if frame is None:
        return None
    file = frame.f_code.co_filename
    if file.startswith(_INSTALLED) or not file.startswith(_root):
        return None
    return f"{file}:{frame.f_lineno}"
