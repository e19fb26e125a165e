"""Which event loop is running."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

from ._loop import Loop

_NO_LOOP = "streamkit runs inside asyncio or trio; no event loop is running in this thread"


def current_loop() -> Loop:
    """Return the running loop.

    Raises:
        RuntimeError: None is running in this thread.
    """
    modules = sys.modules
    trio = modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return _trio()()
    if "asyncio" not in modules:
        raise RuntimeError(_NO_LOOP)
    try:
        return _asyncio()()
    except RuntimeError:
        raise RuntimeError(_NO_LOOP) from None


# Loaded with the first loop that runs: asyncio alone is half of what importing us would take.


@cache
def _asyncio() -> Callable[[], Loop]:
    from ._asyncio_loop import running_loop  # noqa: PLC0415

    return running_loop


@cache
def _trio() -> Callable[[], Loop]:
    from ._trio_loop import TrioLoop  # noqa: PLC0415

    return TrioLoop


def now() -> float:
    """The clock of the running loop, in seconds; everything in streamkit reads this one clock."""
    # Not anyio.current_time(): it knows no loop in a timer's callback, where deadlines cancel.
    return current_loop().now()
