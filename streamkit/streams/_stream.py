"""The streaming wrapper: drives an async generator in one task, ends it on a cancel."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Generic, Protocol, Self, TypeVar, runtime_checkable

import anyio
import anyio.lowlevel

from streamkit._core import (
    Cancellation,
    CancelSource,
    CancelToken,
    Interrupted,
    Interrupter,
    Loop,
    Reason,
    Timer,
    current_loop,
    hold,
    token_var,
)
from streamkit.errors import StreamCancelled

logger = logging.getLogger("streamkit.streams")

T = TypeVar("T")

CLOSE_GRACE: Final = 5.0  # seconds; what a generator's own cleanup may take before it is given up
INSIST_AFTER: Final = 0.1  # seconds between two interrupts of a step that swallowed the first one

BLAME_LIMIT: Final = 0.1  # seconds; asking the server why we were cancelled must not keep us

Blame = Callable[[CancelSource], Awaitable[object]]
"""Asked when the reading task was cancelled from outside: may cancel the source, with the cause."""


@runtime_checkable
class Abortable(Protocol):
    """What ``cancellable(engine)`` needs of an engine."""

    def abort_for(self, token: CancelToken, cancellation: Cancellation) -> None:
        """Abort all that was opened under ``token`` and have it proved. Sync; never raises."""


class CancellableStream(Generic[T]):
    """An async iterator over ``items`` that ends when the token of ``source`` is cancelled.

    It is driven by whoever iterates it, in that one task: no task, timer, scope or queue of ours
    stands between the generator and its reader, and what spans the generator's yields (timeouts,
    task groups, context variables) stays in one task from start to end.

    A cancel ends a step that is running, wherever it waits. It closes the generator in the task
    that drove it if that task comes by once more (it does with our responses and below our
    middleware), else as soon as that task has ended, and in any case after ``close_grace`` seconds.

    Raises, from ``__anext__``:
        StreamCancelled: It was cut short. A broken stream never looks like a whole one.
    """

    __slots__ = (
        "__weakref__",
        "_blame",
        "_close_grace",
        "_closed",
        "_closing",
        "_driver",
        "_ended",
        "_interrupter",
        "_items",
        "_loop",
        "_source",
        "_stepping",
        "_timer",
        "token",
    )

    def __init__(
        self,
        items: AsyncIterator[T],
        source: CancelSource,
        *,
        blame: Blame | None = None,
        close_grace: float = CLOSE_GRACE,
    ) -> None:
        self._items = items
        self._blame = blame
        self._close_grace = close_grace
        self._loop: Loop = current_loop()
        self._source = source
        self.token: CancelToken = source.token
        self._interrupter: Interrupter | None = None
        self._driver: object = None
        self._stepping = False
        self._ended = False  # nothing more will come out
        self._closing = False
        self._closed = anyio.Event()
        self._timer: Timer | None = None
        self.token.add_listener(self._stop)

    @property
    def source(self) -> CancelSource:
        """The right to cancel this stream alone."""
        return self._source

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._ended or self.token.cancelled:
            await self._refuse()
        interrupter = self._interrupter or self._begin()
        if self._stepping:
            raise RuntimeError(f"{self!r} is already being read by another task")
        outer = token_var.set(self.token)
        self._stepping = True
        try:
            return await interrupter.step(anext(self._items))
        except Interrupted:
            await self._close_interrupted()
            raise StreamCancelled(self._cause) from None
        except (StopAsyncIteration, Exception):
            self._end()
            raise
        except BaseException as error:
            await self._cut_short(error)
            raise
        finally:
            self._stepping = False
            token_var.reset(outer)

    async def aclose(self) -> None:
        """Cancel the work unless it has ended, and wait until its generator is closed.

        Legal from any task, also while another one reads. Closing is shielded and limited to the
        ``close_grace`` that the stream was made with.
        """
        if not self._ended:
            self._source.cancel(Reason.REQUESTED, "closed by its reader")
        await self._close()

    def _begin(self) -> Interrupter:
        self._driver = self._loop.task()
        self._interrupter = self._loop.interrupter()
        return self._interrupter

    async def _refuse(self) -> None:
        await self._close()
        self.token.raise_if_cancelled()
        raise StopAsyncIteration

    @property
    def _cause(self) -> Cancellation:
        cancellation = self.token.cancellation
        assert cancellation is not None, "only a cancel interrupts a step"
        return cancellation

    async def _close_interrupted(self) -> None:
        self._stepping = False
        await self._close()
        # A scope around us that was cancelled for the same reason goes first: frameworks end a
        # response whose client left with their own cancel, and quietly.
        await anyio.lowlevel.checkpoint()

    def _end(self) -> None:
        """It came to its end by itself: from here on nothing can cancel it."""
        self._ended = True
        self._source.finish()

    async def _cut_short(self, error: BaseException) -> None:
        """The task that drives us was cancelled from outside; the generator has unwound with it."""
        self._stepping = False
        if self._blame is not None and not self.token.cancelled:
            with anyio.move_on_after(BLAME_LIMIT, shield=True):
                await self._blame(self._source)
        self._source.cancel(Reason.REQUESTED, f"the task reading it ended: {type(error).__name__}")
        await self._close()

    # -- cancelled -----------------------------------------------------------------------------

    def _stop(self, _: Cancellation) -> None:
        if self._ended:
            return
        if self._stepping:
            self._insist()
        elif self._driver is None:
            hold(self._close, name="closing a stream that never began")
        else:
            _orphans.setdefault(self._driver, []).append(self)
            self._loop.when_done(self._driver, self._adopt)
            self._timer = self._loop.call_at(self._loop.now() + self._close_grace, self._adopt)

    def _insist(self) -> None:
        # User code may swallow one cancel; anyio's scopes repeat theirs for the same reason.
        if self._stepping and self._interrupter is not None:
            self._interrupter.interrupt()
            self._timer = self._loop.call_at(self._loop.now() + INSIST_AFTER, self._insist)

    def _adopt(self) -> None:
        """The driver ended, or is busy elsewhere, and left the generator suspended."""
        if not self._closing and not self._stepping:
            hold(self._close, name="closing a stream that its reader left")

    async def _close(self) -> None:
        if self._stepping or self._closing:  # whoever drives it closes it, now that it is cancelled
            with anyio.move_on_after(self._close_grace, shield=True):
                await self._closed.wait()
            return
        self._closing = self._ended = True
        _forget(self)
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._close_items()
        finally:
            self._closed.set()

    async def _close_items(self) -> None:
        aclose = getattr(self._items, "aclose", None)
        if aclose is None:
            return
        with anyio.move_on_after(self._close_grace, shield=True) as scope:
            try:
                await aclose()
            except Exception:
                logger.exception("the cleanup of a cancelled stream failed: %r", self._items)
        if scope.cancelled_caught:
            logger.error(
                "the cleanup of a cancelled stream did not end within %.3g s and was given up: %r",
                self._close_grace,
                self._items,
            )

    def __repr__(self) -> str:
        state = "reading" if self._stepping else "ended" if self._ended else "open"
        return f"<CancellableStream {state} {self.token!r}>"


_orphans: dict[object, list[CancellableStream[Any]]] = {}
"""Cancelled streams whose generator is suspended, by the task that drove them."""


async def close_orphans() -> None:
    """Close the cancelled streams that the running task drove and left suspended at a yield.

    Called from the middleware's ``send``: there, the task that drives a generator comes by while
    it hands a chunk to the server, and Starlette never closes what it iterates (measured). Closing
    it in that same task is what lets a task group or a timeout in it span its yields.
    """
    if not _orphans:
        return
    for stream in _orphans.pop(current_loop().task(), []):
        await stream._close()


def _forget(stream: CancellableStream[Any]) -> None:
    waiting = _orphans.get(stream._driver)
    if waiting is not None and stream in waiting:
        waiting.remove(stream)
        if not waiting:
            del _orphans[stream._driver]
