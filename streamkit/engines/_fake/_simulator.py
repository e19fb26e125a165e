"""The simulated engine: an ordered inbox, a step loop on the clock, an API as raw as real ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import anyio

from streamkit._core import current_loop, now
from streamkit.errors import EngineFailed, RequestRefused

from ._lies import Honest
from ._log import StepLog
from ._scheduler import Job, Machine, Scheduler

logger = logging.getLogger("streamkit.engines")


_DUST: Final = 1e-9
# Seconds. The same instant, computed along two ways, differs in its last bits; an abort must not
# wait for one more step because of that.


class _Message(NamedTuple):
    not_before: float
    take: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The engine's books at one moment.

    Attributes:
        running: Sequences in a slot.
        queued: Sequences that wait for one.
        kv_used: KV cache that is reserved, in tokens.
    """

    running: int
    queued: int
    kv_used: int


class Simulator:
    """A continuous-batching engine that computes words.

    Calls go into an inbox that is looked at between two steps, in order. The step that is running
    is completed, so an abort takes effect at the end of it: its tokens were computed, are counted,
    and come out. All calls belong to the event loop's thread, and none of them waits.

    Steps end on a fixed grid, so that timers that are late by a little do not add up. Whoever keeps
    the loop from running for longer than a step has lost the steps of that time: it does not make
    up for them in a burst, as no hardware could. In any stretch of time it makes at most the steps
    that fit, and one more.

    The step loop is a task only while there is something to do.
    """

    __slots__ = (
        "_arrived",
        "_closed",
        "_idle",
        "_inbox",
        "_lie",
        "_machine",
        "_scheduler",
        "_scope",
        "_watchers",
        "failure",
        "log",
    )

    def __init__(self, machine: Machine, lie: Honest) -> None:
        self._machine = machine
        self._lie = lie
        self._scheduler = Scheduler(machine)
        self._inbox: list[_Message] = []
        self._arrived: dict[str, Job] = {}  # in the inbox, not yet in the queue
        self._watchers: dict[Callable[[], object], None] = {}
        self._scope: anyio.CancelScope | None = None  # of the step loop, while there is one
        self._idle: anyio.Event | None = None
        self._closed = False
        self.failure: BaseException | None = None
        self.log = StepLog()

    # -- the raw API ---------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Have a request queued at the next boundary; what comes of it is told to its sink.

        Raises:
            RequestRefused: ``max_queued`` sequences wait already.
            EngineFailed: The engine is dead, or closed.
        """
        if self.failure is not None:
            raise EngineFailed(f"the fake engine is dead: {self.failure}") from self.failure
        if self._closed:
            raise EngineFailed("the fake engine is closed")
        self._check_room(job)
        at = now()
        limit = job.limit * job.n
        self.log.submitted(job.id, prompt_tokens=job.prompt_tokens, limit=limit, at=at)
        self._arrived[job.id] = job
        self._post(at, lambda: self._queue(job))

    def abort(self, request_id: str) -> None:
        """Have a request ended at the next boundary; unknown and ended ids are silently fine."""
        at = now()
        self.log.told(request_id, at)
        self._post(at + self._lie.delay, lambda: self._lie.abort(self, request_id))

    def fence(self, reply: Callable[[], object]) -> None:
        """Have ``reply()`` called when everything that was sent before has been looked at."""
        if self._closed or self.failure is not None:
            reply()  # nothing can be on its way any more
        else:
            self._post(now() + self._lie.delay, lambda: self._lie.fence(reply))

    def kill(self, request_id: str) -> bool:
        """End a request by force, now, past inbox and lies; False when that is impossible."""
        job = self._take_out(request_id, "killed") if self._machine.kill else None
        if job is None:
            return False
        self._say_last_word(job)
        self._report_books()
        return True

    def load(self) -> Load:
        """The books."""
        scheduler = self._scheduler
        return Load(
            running=scheduler.running,
            queued=scheduler.queued + sum(job.n for job in self._arrived.values()),
            kv_used=scheduler.kv_used,
        )

    def holds(self, request_id: str) -> bool:
        """Whether a sequence of the request waits or runs."""
        return request_id in self._arrived or self._scheduler.job(request_id) is not None

    def slots_of(self, request_id: str) -> int:
        """Slots that the request occupies."""
        return self._scheduler.slots_of(request_id)

    def watch_books(self, look: Callable[[], object]) -> None:
        """Have ``look()`` called at each boundary, until :meth:`unwatch_books`."""
        self._watchers[look] = None

    def unwatch_books(self, look: Callable[[], object]) -> None:
        """Call no longer."""
        self._watchers.pop(look, None)

    async def aclose(self) -> None:
        """End everything at once, as the end of a process would; return when the step loop is over.

        Cancellation:
            Stops waiting; everything has ended all the same.
        """
        self._closed = True
        self._inbox.clear()
        for job in self._held():
            self._take_out(job.id, "killed")
            self._say_last_word(job)
        self._report_books()
        if self._scope is not None:
            self._scope.cancel()
            self._idle = self._idle or anyio.Event()
            await self._idle.wait()

    # -- what a lie may do ---------------------------------------------------------------------

    def stop(self, request_id: str, *, answer: bool = True) -> None:
        """Take the request out, and say so or not."""
        job = self._take_out(request_id, "aborted")
        if job is not None and answer:
            self._say_last_word(job)

    def answer(self, request_id: str) -> None:
        """Say that it was taken out."""
        job = self._scheduler.job(request_id)
        if job is not None:
            self._say_last_word(job)

    # -- the step loop -------------------------------------------------------------------------

    def _post(self, not_before: float, take: Callable[[], None]) -> None:
        if self._closed or self.failure is not None:
            return
        self._inbox.append(_Message(not_before, take))
        if self._scope is None:
            self._scope = scope = anyio.CancelScope()
            current_loop().spawn(lambda: self._run(scope), "streamkit fake engine")

    async def _run(self, scope: anyio.CancelScope) -> None:
        # A loop that is cancelled from outside is being shut down: whoever waits must not hang.
        error: BaseException = EngineFailed("the event loop of the fake engine was shut down")
        try:
            with scope:
                await self._step_until_idle()
        except Exception as failure:  # noqa: BLE001 - whatever it is, the engine is dead
            self.failure = error = failure
            self._log_death(failure)
        finally:
            # No await since the last look at the inbox: when all is well nothing is left in it.
            self._scope = None
            self._fail_all(error)
            if self._idle is not None:
                self._idle.set()

    async def _step_until_idle(self) -> None:
        due = now()
        while True:
            self._read_inbox()
            for job in self._scheduler.admit():
                job.sink.started()
            self._report_books()
            if self._scheduler.running:
                due = self._end_of_step(due)
                await anyio.sleep_until(due)
                self._finish_step()
            elif self._inbox:
                due = min(message.not_before for message in self._inbox)
                await anyio.sleep_until(due)
            else:
                return

    def _end_of_step(self, due: float) -> float:
        """``due`` is when the last one should have ended."""
        late = now() - due
        step = self._machine.step
        return due + step if late < step else due + late + step

    def _read_inbox(self) -> None:
        current = now() + _DUST
        inbox, self._inbox = self._inbox, []
        for message in inbox:
            if message.not_before <= current:
                message.take()
        self._inbox = [m for m in inbox if m.not_before > current] + self._inbox

    def _finish_step(self) -> None:
        self._lie.step(self.log.steps + 1)
        work = self._scheduler.step()
        at = now()
        self.log.step(at, work.prefill, work.decode)
        for job in work.completed:
            self.log.ended(job.id, "completed", at)
        for job, choice, text, tokens, finish_reason, logprobs in work.outputs:
            if not job.muted:
                job.sink.output(choice, text, tokens, finish_reason, logprobs)
        for job in work.completed:
            self._say_last_word(job)

    def _report_books(self) -> None:
        for look in list(self._watchers):
            look()

    # -- beginning and end of a request --------------------------------------------------------

    def _check_room(self, job: Job) -> None:
        load, machine = self.load(), self._machine
        free = max(0, machine.slots - load.running)
        if load.queued + job.n <= machine.max_queued + free:
            return
        turns = load.queued / machine.slots
        raise RequestRefused(
            f"the engine's queue is full: {load.queued} sequences wait for {machine.slots} slots "
            f"(limit {machine.max_queued})",
            retry_after=max(1.0, turns * job.limit * machine.step),
        )

    def _queue(self, job: Job) -> None:
        if self._arrived.pop(job.id, None) is not None:
            self._scheduler.add(job)

    def _held(self) -> list[Job]:
        return [*self._arrived.values(), *self._scheduler.jobs()]

    def _take_out(self, request_id: str, end: str) -> Job | None:
        job = self._arrived.pop(request_id, None) or self._scheduler.remove(request_id)
        if job is not None:
            self.log.ended(request_id, end, now())
        return job

    def _say_last_word(self, job: Job) -> None:
        if not job.muted:
            job.muted = True
            job.sink.answered()

    def _fail_all(self, error: BaseException) -> None:
        self._inbox.clear()
        for job in self._held():
            self._take_out(job.id, "failed")
            job.sink.failed(error)
        self._report_books()

    def _log_death(self, failure: Exception) -> None:
        load = self.load()
        logger.error(
            "the fake engine died after %d steps, with %d sequences running and %d queued: %s",
            self.log.steps,
            load.running,
            load.queued,
            failure,
            exc_info=failure,
        )

    def __repr__(self) -> str:
        state = "dead" if self.failure else "closed" if self._closed else "open"
        return f"<Simulator {state}: {self._scheduler!r}, {len(self._inbox)} in the inbox>"
