"""A thread for making an engine in, which stays until the engine goes.

A process may ask to be killed with its parent (Linux: ``PR_SET_PDEATHSIG``), as SGLang's do. To the
kernel its parent is the thread that started it: one that is borrowed from a pool, and ends when it
was idle for a while, takes the engine with it (measured).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from streamkit._core import NEVER
from streamkit.streams import OneThread, call_in_thread

T = TypeVar("T")


async def make_in_lasting_thread(make: Callable[[], T]) -> tuple[T, Callable[[], object]]:
    """Return what ``make`` returns, and what ends the thread that it ran in.

    Raises:
        Exception: ``make`` raised it; the thread has ended.

    Cancellation:
        Leaves the thread to finish the call, and to end.
    """
    thread = OneThread()
    try:
        return await call_in_thread(make, (), {}, token=NEVER, thread=thread), thread.close
    except BaseException:
        thread.close()
        raise
