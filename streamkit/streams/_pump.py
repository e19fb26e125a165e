"""The hand-over from a generator's thread to its reader: a bounded buffer and a few flags."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, Generic, TypeVar, cast

import anyio
import anyio.lowlevel

from streamkit._core import Cancellation, CancelSource, Reason, current_loop
from streamkit.errors import UsageBug

from ._closing import close_iterator, is_fresh
from ._thread_job import ThreadJob, report_late_error

T = TypeVar("T")

FAIR_SHARE: Final = 64  # items that a reader gets without letting the loop's other tasks run


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpOptions:
    """How a generator is run; :class:`ThreadedGenerator` says what each means."""

    batch_limit: int
    report_after: float
    close_grace: float
    interrupt: bool
    on_end: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        if self.batch_limit < 1:
            raise ValueError(f"batch_limit must be at least 1 item, got {self.batch_limit!r}")
        for name in ("report_after", "close_grace"):
            if (seconds := getattr(self, name)) <= 0:
                raise ValueError(f"{name} must be above 0 seconds, got {seconds!r}")


class Pump(Generic[T]):
    """Runs a generator on one thread and keeps what its reader has not taken yet.

    No locks, so that neither side ever waits for the other's turn at the interpreter: each flag is
    set by one side, and whoever is about to sleep says so first and then looks once more.

    * The worker sleeps when the buffer is full. It puts a mark into ``_parked``; whoever takes that
      mark out (one does) owes it one entry in ``_wakeups``.
    * The reader sleeps when the buffer is empty. It sets ``_waiting``; the worker clears that with
      the one wake-up that it posts, so a batch costs one.

    Attributes:
        source: The right to cancel this generator alone.
        name: The generator's qualified name.
        delivered: Items that the reader took.
        undelivered: Items that were made and dropped, because the generator was cancelled.
    """

    __slots__ = (
        "_asking",
        "_at_once",
        "_buffer",
        "_error",
        "_event",
        "_finished",
        "_generator",
        "_job",
        "_loop",
        "_options",
        "_parked",
        "_slot",
        "_stopping",
        "_waiting",
        "_wakeups",
        "delivered",
        "name",
        "source",
        "undelivered",
    )

    def __init__(self, generator: Iterator[T], source: CancelSource, options: PumpOptions) -> None:
        self.source = source
        self.name: str = getattr(generator, "__qualname__", type(generator).__qualname__)
        self.delivered = 0
        self.undelivered = 0
        self._generator: Iterator[T] | None = generator
        self._options = options
        self._job: ThreadJob | None = None
        self._buffer: deque[T] = deque()
        # The reader's:
        self._asking = False  # it is inside a call for the next item
        self._waiting = False
        self._event: anyio.Event | None = None
        self._at_once = 0  # items taken since the loop's other tasks had their turn
        self._stopping = False
        # The worker's:
        self._slot: list[T] = []
        self._error: BaseException | None = None
        self._finished = False  # nothing more comes; set after the last item and the error
        self._parked: list[None] = []
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        source.token.add_listener(self._cancelled)

    # -- the reader's side: the loop's thread --------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether a thread has been given to it."""
        return self._job is not None

    @property
    def buffered(self) -> int:
        """Items that are ready to be taken."""
        return len(self._buffer)

    def ready(self) -> bool:
        """Whether the reader may take an item at once; raises when it was cancelled."""
        self.source.token.raise_if_cancelled()
        return bool(self._buffer) and self._at_once < FAIR_SHARE

    def take(self) -> T:
        """Take one of the items that are ready."""
        self.delivered += 1
        self._at_once += 1
        item = self._buffer.popleft()
        if self._parked and len(self._buffer) < self._options.batch_limit // 2:
            self._unpark()
        return item

    async def wait_ready(self) -> bool:
        """Wait for an item; False at the end. Raises what the generator raised."""
        if self._asking:
            raise UsageBug(
                f"two tasks read {self.name} at the same time; a generator has one reader"
            )
        self._asking = True
        try:
            if self._job is None and not self._stopping:
                self._start()
            if self._buffer:  # the reader has not slept for a while
                await anyio.lowlevel.checkpoint()
            self._at_once = 0
            while not self._settled():
                await self._sleep()
                if self.source.token.cancelled:
                    # A scope around the reader that was cancelled for the same reason goes first:
                    # frameworks end a response whose client left with their own cancel, quietly.
                    await anyio.lowlevel.checkpoint()
        finally:
            self._asking = False
        return bool(self._buffer)

    def stop(self) -> None:
        """Have the worker close the generator; what was not taken is dropped."""
        self._stopping = True
        self._discard()
        if self._job is None:
            self._close_unstarted()
        if self._job is not None:
            self._unpark()
            self._job.stop(self._options.close_grace)
        self._wake()

    async def wait_closed(self) -> None:
        """Wait until the worker has closed the generator; shielded, and limited in time."""
        if self._job is not None:
            await self._job.wait_ended(self._options.close_grace)

    def release(self) -> None:
        """The reader was collected. Any thread, at any instant: takes no locks."""
        if self._job is None or self._stopping or self.source.token.finished:
            return
        source = self.source
        if not self._job.post(lambda: source.cancel(Reason.REQUESTED, "dropped by its reader")):
            self._stopping = True
            self._unpark()

    def _start(self) -> None:
        job = ThreadJob(
            self._work,
            name=self.name,
            on_end=self._ended,
            report_after=self._options.report_after,
            interrupt=self._options.interrupt,
        )
        self._loop = current_loop()
        self._job = job
        try:
            job.start(self.source.token, "generator")
        except BaseException:  # no thread to be had: nothing began
            self._job = None
            raise

    def _settled(self) -> bool:
        self.source.token.raise_if_cancelled()
        finished = self._finished  # asked before the buffer, which the worker fills before
        if self._buffer:
            return True
        if finished or self._stopping:
            self._end()
            return True
        return False

    def _end(self) -> None:
        if not self.source.finish():
            self.source.token.raise_if_cancelled()
        error, self._error = self._error, None
        if isinstance(error, StopAsyncIteration):  # would read as a clean end
            message = f"{self.name} raised StopAsyncIteration"
            raise RuntimeError(message) from error  # noqa: TRY004 - as Python does in PEP 479
        if error is not None:
            raise error

    async def _sleep(self) -> None:
        self._event = event = anyio.Event()
        self._waiting = True
        self._unpark()
        try:
            if not self._buffer and not self._finished:
                await event.wait()
        finally:
            self._waiting = False
            self._event = None

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()

    def _unpark(self) -> None:
        if self._take_mark():
            # On the worker's behalf, and now: until it runs, a virtual clock could run ahead.
            self._loop.thread_started()
            self._wakeups.put(None)  # reentrant, as the finaliser needs it

    def _cancelled(self, _: Cancellation) -> None:
        self.stop()

    def _ended(self) -> None:
        if self._stopping:
            self._discard()
        self._wake()
        self._say_ended()

    def _say_ended(self) -> None:
        if self._options.on_end is not None:
            self._options.on_end()

    def _discard(self) -> None:
        while self._buffer:
            self._buffer.popleft()
            self.undelivered += 1
        error, self._error = self._error, None
        if error is not None:
            report_late_error(self.name, error)

    def _close_unstarted(self) -> None:
        generator = self._generator
        if is_fresh(generator):
            generator.close()  # runs nothing of the user's, hence no thread
            self._generator = None
            self._finished = True
            self._say_ended()
        elif not self._finished:
            self._start()

    # -- the worker's side ---------------------------------------------------------------------

    def _work(self) -> None:
        generator = cast("Iterator[T]", self._generator)
        self._generator = None
        job = cast("ThreadJob", self._job)
        job.doing = "next()"
        try:
            while self._may_go_on() and self._pull(generator, job):
                pass
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised by the reader
            self._buffer.extend(self._slot)
            self._error = error
        job.doing = "close()"
        close_iterator(generator, self.name)
        self._finished = True

    def _pull(self, generator: Iterator[T], job: ThreadJob) -> bool:
        """Make one item. False when the generator has ended."""
        slot = self._slot
        # One call in C: an interrupt cannot come between the generator's yield and the slot, so
        # that no item is lost from the books.
        job.call(partial(slot.extend, islice(generator, 1)))
        if not slot:
            return False
        self._buffer.append(slot.pop())
        if self._waiting:
            self._waiting = False
            if not job.post(self._wake):
                self._stopping = True  # the loop is closed: nobody will ever read
        return True

    def _may_go_on(self) -> bool:
        """Sleep while the buffer is full; False when told to stop."""
        while not self._told_to_stop():
            if self._has_room():
                return True
            self._parked.append(None)
            if (self._told_to_stop() or self._has_room()) and self._take_mark():
                continue
            self._loop.thread_parked()
            self._wakeups.get()
        return False

    def _told_to_stop(self) -> bool:
        # The token is ahead of our own flag when another thread cancelled it.
        return self._stopping or self.source.token.cancelled

    def _has_room(self) -> bool:
        # One place is for the item that is being asked for: with a limit of 1 nothing is made
        # before it is asked for.
        return len(self._buffer) < self._options.batch_limit - (not self._asking)

    def _take_mark(self) -> bool:
        try:
            self._parked.pop()
        except IndexError:
            return False
        return True

    def __repr__(self) -> str:
        state = (
            ("ended" if self._finished else "closing" if self._stopping else "running")
            if self.started
            else "not started"
        )
        return f"{self.name} {state}: {self.delivered} delivered, {self.buffered} buffered"
