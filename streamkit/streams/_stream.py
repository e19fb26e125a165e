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
    Loop,
    Phase,
    Reason,
    Signal,
    Timer,
    current_loop,
    hold,
    shield_if_cancelled,
    token_var,
)
from streamkit.errors import StreamCancelled

from ._insist import Step

logger = logging.getLogger("streamkit.streams")

T = TypeVar("T")
R = TypeVar("R")

CLOSE_GRACE: Final = 5.0  # seconds; what a generator's own cleanup may take before it is given up

BREATHE_EVERY: Final = 16
# items; a generator that never waits, before a send() that never blocks, would else keep the loop
# from ever hearing that the client left (measured: to the last of 1,000,000 tokens)

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
        "_close_awaited",
        "_close_grace",
        "_closed",
        "_closing",
        "_count",
        "_driver",
        "_ended",
        "_items",
        "_loop",
        "_source",
        "_step",
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
        self._step = Step(self._loop, close_grace, items)
        self._driver: object = None
        self._count = 0
        self._ended = False  # nothing more will come out
        self._closing = False
        self._closed = False
        self._close_awaited: Signal | None = None
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
        self._begin()
        outer = token_var.set(self.token)
        try:
            if not self._count % BREATHE_EVERY:
                await self._step.run(self._loop.breathe())
            return await self._step.run(anext(self._items))
        except Interrupted:
            await self._close_interrupted()  # noqa: ASYNC120 - an outer cancel goes first
            raise StreamCancelled(self._cause) from None
        except Exception as error:
            self._end(error)
            raise
        except BaseException as error:
            await self._cut_short(error)  # noqa: ASYNC102 - it shields and limits itself
            raise
        finally:
            token_var.reset(outer)

    async def drive(self, consume: Callable[[AsyncIterator[T]], Awaitable[R]]) -> R:
        """Hand the bare items to ``consume`` and end it, wherever it waits, when cancelled.

        For whoever reads a stream whole, in one place: nothing at all of ours is then run per item.
        ``consume`` should look at ``token.cancelled`` between items, for a generator that swallows
        its cancel. The generator is closed when this returns, in this task.

        Raises:
            StreamCancelled: It was cut short.
        """
        if self.token.cancelled:
            await self._refuse()
        self._driver = self._loop.task()
        self._source.phase = Phase.PREFILL
        outer = token_var.set(self.token)
        try:
            result = await self._step.run(consume(self._items))
        except Interrupted:
            raise StreamCancelled(self._cause) from None
        except Exception as error:
            self._end(error)
            raise
        except BaseException as error:
            await self._cut_short(error)  # noqa: ASYNC102 - it shields and limits itself
            raise
        finally:
            token_var.reset(outer)
            if not self._closes_at_once():
                await self._close()  # noqa: ASYNC102 - limited by its own timer
        self._end(StopAsyncIteration())
        return result

    async def aclose(self) -> None:
        """Cancel the work unless it has ended, and wait until its generator is closed.

        Legal from any task, also while another one reads. Closing is shielded and limited to the
        ``close_grace`` that the stream was made with.
        """
        if not self._ended:
            self._source.cancel(Reason.REQUESTED, "closed by its reader")
        await self._close()

    async def _refuse(self) -> None:
        await self._close_shielded()
        self.token.raise_if_cancelled()
        raise StopAsyncIteration

    @property
    def _cause(self) -> Cancellation:
        cancellation = self.token.cancellation
        assert cancellation is not None, "only a cancel interrupts a step"
        return cancellation

    async def _close_interrupted(self) -> None:
        await self._close_shielded()
        # A scope around us that was cancelled for the same reason goes first: frameworks end a
        # response whose client left with their own cancel, and quietly.
        await anyio.lowlevel.checkpoint()

    def _begin(self) -> None:
        if self._driver is None:
            self._driver = self._loop.task()
        elif self._step.running:
            raise RuntimeError(f"{self!r} is already being read by another task")
        self._count += 1
        # Recorded with a cancel; what our responses read, they say themselves.
        if self._count <= 2:
            self._source.phase = Phase.PREFILL if self._count == 1 else Phase.DECODE

    def _end(self, error: Exception) -> None:
        """It came to its end by itself: from here on nothing can cancel it.

        Raises:
            StreamCancelled: It did not: engines end their iterators quietly when cancelled.
        """
        if isinstance(error, StopAsyncIteration):
            self.token.raise_if_cancelled()
        self._ended = True
        self._source.finish()

    async def _cut_short(self, error: BaseException) -> None:
        """The task that drives us was cancelled from outside; the generator has unwound with it."""
        if self._blame is not None and not self.token.cancelled:
            with anyio.move_on_after(BLAME_LIMIT, shield=True):
                await self._blame(self._source)
        self._source.cancel(Reason.REQUESTED, f"the task reading it ended: {type(error).__name__}")
        with shield_if_cancelled():  # not by a server, whose cancel comes once
            await self._close()

    # -- cancelled -----------------------------------------------------------------------------

    def _stop(self, _: Cancellation) -> None:
        if self._ended:
            return
        if self._step.running:
            self._step.stop()
        elif self._driver is None:
            hold(self._close, name="closing a stream that never began")
        else:
            _orphans.setdefault(self._driver, []).append(self)
            self._loop.when_done(self._driver, self._adopt)
            self._timer = self._loop.call_at(self._loop.now() + self._close_grace, self._adopt)

    def _adopt(self) -> None:
        """The driver ended, or is busy elsewhere, and left the generator suspended."""
        if not self._closing and not self._step.running:
            hold(self._close, name="closing a stream that its reader left")

    async def _close_shielded(self) -> None:
        # Below a framework, a scope around us is cancelled, mostly, and would cut the cleanup at
        # its first await. The price: a generator that holds a scope of its own across a yield
        # cannot be closed cleanly below such a framework; with our responses it can.
        with anyio.CancelScope(shield=True):
            await self._close()

    async def _close(self) -> None:
        if self._step.running or self._closing:  # whoever drives it closes it
            await self._wait_closed()
            return
        self._closing = self._ended = True
        _forget(self)
        if self._timer is not None:
            self._timer.cancel()
        try:
            if not self._has_unwound():
                await self._close_items()
        finally:
            self._set_closed()

    def _closes_at_once(self) -> bool:
        """Close it, if there is nothing to await for that: mostly the generator has unwound."""
        if self._closing or self._timer is not None or not self._has_unwound():
            return False
        self._closing = self._ended = True
        self._set_closed()
        return True

    def _has_unwound(self) -> bool:
        return getattr(self._items, "ag_frame", self) is None

    def _set_closed(self) -> None:
        self._closed = True
        if self._close_awaited is not None:
            self._close_awaited.set()

    async def _wait_closed(self) -> None:
        if self._closed:
            return
        self._close_awaited = self._close_awaited or self._loop.signal()
        with anyio.move_on_after(self._close_grace, shield=True):
            await self._close_awaited.wait()

    async def _close_items(self) -> None:
        # Limited by a timer, not by a scope: a generator that holds a scope of its own across a
        # yield (a task group, a timeout) would leave it inside ours, which anyio forbids.
        aclose = getattr(self._items, "aclose", None)
        if aclose is None:
            return
        timer = self._loop.call_at(self._loop.now() + self._close_grace, self._step.stop)
        try:
            await self._step.run(aclose())
        except Interrupted:
            logger.error(  # noqa: TRY400 - our own signal's traceback says nothing
                "the cleanup of a cancelled stream did not end within %.3g s and was given up: %r",
                self._close_grace,
                self._items,
            )
        except Exception:
            logger.exception("the cleanup of a cancelled stream failed: %r", self._items)
        except BaseExceptionGroup as group:
            # What a task group makes of the GeneratorExit that passes through it.
            if group.split(GeneratorExit)[1] is not None:
                raise
        finally:
            timer.cancel()

    def __repr__(self) -> str:
        state = "reading" if self._step.running else "ended" if self._ended else "open"
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
        await stream._close_shielded()


def _forget(stream: CancellableStream[Any]) -> None:
    waiting = _orphans.get(stream._driver)
    if waiting is not None and stream in waiting:
        waiting.remove(stream)
        if not waiting:
            del _orphans[stream._driver]
