"""Async generators that a model's code leaves half-read: closed, and counted until they have ended.

``async for chunk in engine.generate(): yield chunk`` does not close the engine's generator when it
is closed itself: Python drops it, and the event loop closes it in a task of its own, some turns
later. Uncounted, a request would be over, and its slot free, before the ``finally`` which aborts
the engine has run.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

from streamkit._core import current_loop, hold
from streamkit.streams import CLOSE_GRACE

if TYPE_CHECKING:
    from ._own_threads import OwnThreads


class Owner(Protocol):
    """The request that runs: what its model's code leaves behind is work of it."""

    @property
    def interrupts_threads(self) -> bool:
        """Whether a cancel raises in its threads."""
        ...

    def begin_dropped(self) -> Callable[[], None]:
        """A piece of work begins, also after the answer is complete; call what it returns."""
        ...

    def own_threads(self) -> OwnThreads:
        """Its threads; any thread."""
        ...


owner_var: Final[ContextVar[Owner | None]] = ContextVar("streamkit_owner", default=None)


def count_dropped() -> None:
    """Count what is dropped in this loop, until its end. Idempotent."""
    finalizer = sys.get_asyncgen_hooks().finalizer
    if not isinstance(finalizer, _Finalizer):
        sys.set_asyncgen_hooks(finalizer=_Finalizer(finalizer))


class _Finalizer:
    """Called when nobody refers any more to an async generator that has not ended."""

    __slots__ = ("_of_loop",)

    def __init__(self, of_loop: Callable[[AsyncGenerator[Any, Any]], object] | None) -> None:
        self._of_loop = of_loop

    def __call__(self, generator: AsyncGenerator[Any, Any]) -> None:
        owner = owner_var.get()
        if owner is not None and _on_loop():
            _close(generator, owner.begin_dropped())
        elif self._of_loop is not None:
            self._of_loop(generator)


def _close(generator: AsyncGenerator[Any, Any], end: Callable[[], None]) -> None:
    async def close() -> None:
        try:
            await generator.aclose()
        finally:
            end()

    hold(close, name=f"the cleanup of {generator!r}", limit=CLOSE_GRACE)


def _on_loop() -> bool:
    """Not so where a thread drops the last reference: only the loop's own way is safe there."""
    try:
        current_loop()
    except RuntimeError:
        return False
    return True
