"""A sync generator as an async iterator: it lives on one thread, and is read in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, NoReturn, Self, TypeVar

import anyio

from streamkit._core import CancelSource, CancelToken, Reason
from streamkit.errors import UsageBug

from ._pump import Pump, PumpOptions
from ._stream import BLAME_LIMIT, CLOSE_GRACE, Blame
from ._thread_job import REPORT_AFTER

T = TypeVar("T")

BATCH_LIMIT: Final = 64  # items; some 40 µs of thread switches are then below 1 µs for each


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorStatistics:
    """The books of one threaded generator.

    Attributes:
        delivered: Items that its reader got.
        buffered: Items that were made and wait for the reader.
        undelivered: Items that were made and dropped, because it was cancelled.
    """

    delivered: int
    buffered: int
    undelivered: int

    @property
    def produced(self) -> int:
        """All items that the generator yielded."""
        return self.delivered + self.buffered + self.undelivered


class ThreadedGenerator(Generic[T]):
    """An async iterator over a sync generator that ends when the token of ``source`` is cancelled.

    The generator runs on one worker thread from its first ``next()`` to its ``close()``, in one
    context, in which ``current_token()`` is the token. Nothing runs before the first item is asked
    for. Only that thread advances or closes it, so that the two never overlap, and a ``finally`` of
    the user's runs there as soon as the running ``next()`` has returned.

    It computes ahead of its reader, at most ``batch_limit`` items in all, then it waits. With
    ``batch_limit=1`` it computes only what is being asked for.

    A cancel is seen by the reader at once, also while ``next()`` blocks. A thread cannot be killed:
    the generator itself can ask ``current_token()`` in long steps, or opt in to ``interrupt``. A
    ``next()`` that keeps the cancel waiting is reported with the line where it hangs, once, and
    again with the measured time when it came back.

    Args:
        generator: A generator, or another iterator; ``close()`` is called if it has one.
        source: Finished when the end was read, cancelled when the reader leaves before.
        blame: Asked why the reading task was cancelled from outside.
        batch_limit: Items that may be made and not yet read.
        report_after: Seconds that user code may keep a cancel waiting without a report.
        close_grace: Seconds to wait for the end of the thread; then it is given up and counted.
        on_end: Called once, in the loop, when its thread has left it, or it was closed unstarted.
        interrupt: Raise ``ThreadInterrupted`` in a running ``next()`` when cancelled (CPython). It
            strikes in any line, also of a library that holds a lock at the moment; locks taken
            with ``with`` are let go, others stay taken. Hence nobody gets it without asking.

    Raises, from ``__anext__``:
        StreamCancelled: It was cut short.
        UsageBug: Two tasks read it at the same time.
    """

    __slots__ = ("__weakref__", "_blame", "_pump", "token")

    def __init__(  # noqa: PLR0913 - the options of one decorator
        self,
        generator: Iterator[T],
        source: CancelSource,
        *,
        blame: Blame | None = None,
        batch_limit: int = BATCH_LIMIT,
        report_after: float = REPORT_AFTER,
        close_grace: float = CLOSE_GRACE,
        interrupt: bool = False,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        if not hasattr(generator, "__next__"):
            raise UsageBug(
                f"a thread can run a generator or an iterator, got {type(generator).__name__}"
            )
        self.token: CancelToken = source.token
        self._blame = blame
        options = PumpOptions(
            batch_limit=batch_limit,
            report_after=report_after,
            close_grace=close_grace,
            interrupt=interrupt,
            on_end=on_end,
        )
        self._pump = Pump(generator, source, options)

    @property
    def source(self) -> CancelSource:
        """The right to cancel this generator alone."""
        return self._pump.source

    def __aiter__(self) -> Self:
        return self

    def __iter__(self) -> NoReturn:
        # Without it Python says "not iterable", and users wonder why their generator is not.
        raise UsageBug(
            "@cancellable made this generator asynchronous: read it with `async for`, or give it "
            "to ByteStream, EventStream or StreamingResponse"
        )

    async def __anext__(self) -> T:
        pump = self._pump
        if pump.ready() or await self._wait():
            return pump.take()
        raise StopAsyncIteration

    async def next_batch(self) -> list[T]:
        """Wait for an item; return it with all others that are ready, or ``[]`` at the end.

        Raises:
            StreamCancelled: It was cut short.

        Cancellation:
            Cancels the generator: nobody reads it any more.
        """
        if self._pump.ready() or await self._wait():
            return self.take_ready()
        return []

    def take_ready(self) -> list[T]:
        """Return the items that are ready now, without waiting; perhaps none.

        Raises:
            StreamCancelled: It was cut short.
        """
        pump = self._pump
        self.token.raise_if_cancelled()
        return [pump.take() for _ in range(pump.buffered)]

    async def aclose(self) -> None:
        """Cancel the generator unless its end was read, and wait until its thread has closed it.

        Legal from any task, also while another one reads. Shielded, and limited to ``close_grace``.
        """
        self.source.cancel(Reason.REQUESTED, "closed by its reader")
        self._pump.stop()
        await self._pump.wait_closed()

    def statistics(self) -> GeneratorStatistics:
        """Return its books as they are now."""
        pump = self._pump
        return GeneratorStatistics(
            delivered=pump.delivered, buffered=pump.buffered, undelivered=pump.undelivered
        )

    async def _wait(self) -> bool:
        try:
            return await self._pump.wait_ready()
        except anyio.get_cancelled_exc_class() as error:
            # Cancelled from outside: nobody reads on. If the token was first, that is the cause.
            with anyio.move_on_after(BLAME_LIMIT, shield=True):
                await self._ask_blame()
            if not self.token.cancelled:
                ended = f"the task reading it ended: {type(error).__name__}"
                self.source.cancel(Reason.REQUESTED, ended)
            raise

    async def _ask_blame(self) -> None:
        if self._blame is not None and not self.token.cancelled:
            await self._blame(self.source)

    def __del__(self) -> None:
        # Nothing else would tell the thread: Starlette, for one, never closes what it iterates.
        pump = getattr(self, "_pump", None)
        if pump is not None:
            pump.release()

    def __repr__(self) -> str:
        return f"<ThreadedGenerator {self._pump!r}>"
