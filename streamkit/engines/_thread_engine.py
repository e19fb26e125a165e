"""The driver for engines that block: each generation on one thread, which is asked to stop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Generator
from contextlib import closing

import anyio

from streamkit._core import CancelSource
from streamkit.streams import ThreadedGenerator

from ._async_engine import AsyncEngine
from ._base import Capabilities, Chunk, EngineStatistics, Proof
from ._job import Job
from ._ladder import LadderLimits


class ThreadEngine(AsyncEngine):
    """An adapter for an engine that computes inside a blocking call; it has to say how to call it.

    Write :meth:`compute`, a generator. It runs on a worker thread from its first line to its last,
    and has to end when ``job.cancelled`` is true: between two chunks it is closed, so that only
    steps that are long need to ask. The proof of stop is that the thread has left it, and its slot
    is free then and not before. An engine in a process of its own is driven by the thread that
    reads from it; :meth:`kill` then has something to end.

    The chunks come over in batches, one wake-up for each. The thread computes ahead of its reader,
    ``ahead`` chunks and the few that its generation keeps; then it waits.

    Args:
        name: Its name in logs, metrics and ``GET /v1/engine``.
        capabilities: What is true of it.
        slots: Generations that run at once; the others wait here, first come, first served.
        limits: How long the ladder waits for a proof of stop.

    Attributes:
        ahead: Chunks that may be made and not yet read, at least 1.
        interrupt: Raise ``ThreadInterrupted`` in the thread as well when cancelled; see
            ``ThreadedGenerator`` for what that may break.
    """

    ahead: int = 16
    interrupt: bool = False

    def __init__(
        self,
        name: str,
        capabilities: Capabilities,
        *,
        slots: int = 1,
        limits: LadderLimits | None = None,
    ) -> None:
        super().__init__(name, capabilities, limits)
        self._slots = slots
        self._free = anyio.Semaphore(slots)
        self._seats: dict[_Seat, None] = {}
        self._left = _Count()

    @abstractmethod
    def compute(self, job: Job) -> Generator[Chunk]:
        """Yield what the engine makes: a generator, run in its own thread.

        An error of it is a failure of the request, unless that was cancelled: then it is its end.
        """

    def statistics(self) -> EngineStatistics | None:
        """Its books: what its threads do, and what came out of them."""
        seats = list(self._seats)
        running = sum(seat.running for seat in seats)
        return self.books(
            slots=self._slots,
            running=running,
            queued=len(seats) - running,
            steps=self._left.chunks + sum(seat.chunks for seat in seats),
            tokens=self._left.tokens + sum(seat.made for seat in seats),
        )

    async def is_gone(self, job_id: str) -> bool:
        """Whether its thread has left it."""
        return all(seat.job.id != job_id for seat in self._seats)

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        """Wait for a slot, then read what the thread makes."""
        job.registered()  # the queue is ours: to leave it is all there is to do
        seat = _Seat(job)
        self._seats[seat] = None
        try:
            await self._free.acquire()
        except BaseException:
            self._leave(seat)
            raise
        seat.running = True
        job.started()
        threaded = self._start(seat)
        try:
            while batch := await threaded.next_batch():
                for chunk in batch:
                    yield chunk
        finally:
            try:
                await threaded.aclose()
            finally:  # also where the cancel strikes just this await
                if seat not in self._seats:  # the thread may have left before the cancel
                    job.proved(Proof.JOINED)

    def _start(self, seat: _Seat) -> ThreadedGenerator[Chunk]:
        def left() -> None:
            self._free.release()
            self._leave(seat)

        generator = self._counted(seat)
        # What a report of a thread that does not stop calls it; typeshed does not know the name.
        setattr(generator, "__qualname__", f"{self.name} {seat.job.request_id}")  # noqa: B010
        return ThreadedGenerator(
            generator,
            CancelSource(),
            batch_limit=self.ahead,
            interrupt=self.interrupt,
            on_end=left,
        )

    def _leave(self, seat: _Seat) -> None:
        if self._seats.pop(seat, seat) is None:
            self._left.add(seat)
        seat.job.proved(Proof.JOINED)

    def _counted(self, seat: _Seat) -> Generator[Chunk]:
        """In the thread: count what is made, whoever takes it."""
        job, taken = seat.job, 0
        with closing(self._uninterrupted(job)) as chunks:
            for chunk in chunks:
                seat.chunks += 1
                taken += chunk.tokens
                if seat.made < taken:  # an adapter that counts itself knows of more
                    job.made = taken
                yield chunk
                if job.cancelled:  # known here before the loop has got round to closing us
                    return

    def _uninterrupted(self, job: Job) -> Generator[Chunk]:
        try:
            yield from self.compute(job)
        except Exception:
            if not job.cancelled:  # else it is how a library says that it was interrupted
                raise


class _Count:
    """What those made that have left."""

    __slots__ = ("chunks", "tokens")

    def __init__(self) -> None:
        self.chunks = 0
        self.tokens = 0

    def add(self, seat: _Seat) -> None:
        self.chunks += seat.chunks
        self.tokens += seat.made


class _Seat:
    """One generation, from its queueing to its thread's end; its thread counts."""

    __slots__ = ("chunks", "job", "running")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.chunks = 0
        self.running = False

    @property
    def made(self) -> int:
        """Tokens."""
        return self.job.made or 0

    def __repr__(self) -> str:
        return f"<_Seat of {self.job!r}, {'running' if self.running else 'queued'}>"
