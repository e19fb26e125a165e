"""One trial: a generation is left in one phase by one way, and everything is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio
import anyio.to_thread

from streamkit._core import Cancellation, Phase, now
from streamkit.engines import Outcome, StopReport, prove_stopped

from ._bench import Bench, cancellation, leave
from ._reading import LoopWatch, PhaseTimes, Reader
from ._report import Trial

LAST_TOKENS: Final = 8  # of an answer that is left at its last token, or after it
DECODE_AT: Final = 5
STALL_STEPS: Final = 10
PREFILL_AT: Final = 0.3  # of the time that the whole prefill takes

# A reader that waits cannot let go of what it waits for, and one that has not read cannot stall.
BETWEEN_READS: Final = frozenset({"first token", "decode", "last token"})
# The others take a turn of the loop, or longer: what is made meanwhile is nobody's fault.
AT_ONCE: Final = frozenset({"cancel", "twice", "stall", "close"})
NO_READER: Final = frozenset({"new", "after the end"})


def makes_sense(phase: str, way: str) -> bool:
    """Whether a generation can be left like that."""
    if way == "drop":
        return phase in BETWEEN_READS | NO_READER
    if way == "stall":
        return phase in BETWEEN_READS
    return not (way == "task" and phase in NO_READER)


class Attempt:
    """A trial while it goes on, and what was seen in it.

    Attributes:
        trial: Its line in the report.
        reader: Who read.
        outcome: What is known of the generation's end, or None.
        loop: How long the loop stood still.
        frozen: Tokens that the engine made after it was proved to have stopped; None unknown.
        leave_error: What the way of leaving raised, or None.
        taken: What ``cancel()`` returned, call by call.
        left_queue: Whether it stopped while others still filled the engine.
    """

    def __init__(self, bench: Bench, phase: str, way: str) -> None:
        self.bench = bench
        self.trial = Trial(phase=phase, way=way)
        self.phases = PhaseTimes()
        self.outcome: StopReport | None = None
        self.loop = LoopWatch(bench.plan.block_limit)
        self.frozen: int | None = None
        self.taken: list[bool] = []
        self.blockers: list[Reader] = []
        self.left_queue = False
        self.leave_error: Exception | None = None
        self.made_before: int | None = None
        self.reader = self._open()
        self._dropped = way == "drop"

    @property
    def needs_telling(self) -> bool:
        """Whether the engine has something to stop."""
        return self.trial.phase not in NO_READER

    async def run(self) -> None:
        """All of it."""
        with self.loop.watching():
            if self.trial.phase == "queued":
                async with self.bench.occupied(self.bench.slots) as self.blockers:
                    await self._read_and_leave()
                    await self._prove_in_queue()
            else:
                await self._read_and_leave()
            if self.trial.stopped is None:
                await self._prove()
            if self.blockers:
                await self._canary()
        await self._freeze()

    async def _read_and_leave(self) -> None:
        async with anyio.create_task_group() as tasks:
            await self._reach(tasks)
            await self._leave()
            await self._wait_reader()
            if not self.blockers:
                await self._canary()

    # -- how far it gets -----------------------------------------------------------------------

    def _open(self) -> Reader:
        phase, way = self.trial.phase, self.trial.way
        short = phase in {"last token", "after the end"}
        generation = self.bench.open(
            long=phase == "prefill", tokens=LAST_TOKENS if short else None, phases=self.phases
        )
        holds = way in {"drop", "stall"} and phase in BETWEEN_READS
        return Reader(generation, pause_at=_point(phase) if holds else float("inf"))

    async def _reach(self, tasks: anyio.abc.TaskGroup) -> None:
        phase = self.trial.phase
        if phase == "new":
            return
        mark = self.reader.mark(_point(phase))
        tasks.start_soon(self.reader.read)
        if phase.startswith("turn "):
            for _ in range(int(phase.removeprefix("turn "))):
                await anyio.lowlevel.checkpoint()
            return
        if phase in _WAITS:
            await _WAITS[phase](self)
            return
        with anyio.move_on_after(self.bench.plan.patience):
            await (self.reader.ended if phase == "after the end" else mark).wait()
        if self.trial.way == "stall":
            await anyio.sleep(STALL_STEPS * self.bench.pace.step)

    async def wait_queued(self) -> None:
        """Wait until the engine has it in its queue."""
        with anyio.move_on_after(5 * self.bench.pace.first_token):
            while not self.bench.has_queue():  # noqa: ASYNC110 - books have no event
                await anyio.sleep(max(self.bench.pace.step / 2, 0.001))

    async def wait_prefill(self) -> None:
        """Wait until a good part of the long prompt is through."""
        await anyio.sleep(PREFILL_AT * self.bench.pace.long_first_token)

    # -- how it is left ------------------------------------------------------------------------

    async def _leave(self) -> None:
        if self.trial.way in AT_ONCE:
            self.made_before = self.bench.tokens()
        try:
            await _LEAVE[self.trial.way](self)
        except Exception as error:  # noqa: BLE001 - it never may
            self.leave_error = error
            leave(self.reader.generation, "the way that the trial is about raised")
        self.reader.left_at = now()  # not before: in a thread it takes its time

    async def cancel(self) -> None:
        """Cancel it."""
        self._cancel_now()

    async def cancel_twice(self) -> None:
        """Cancel it and cancel it again."""
        self._cancel_now()
        self._cancel_now()

    async def cancel_in_thread(self) -> None:
        """Cancel it where the loop does not run."""
        await anyio.to_thread.run_sync(self._cancel_now, cancellation("left by the kit"))

    async def close(self) -> None:
        """Close it while its reader waits."""
        if self.reader.generation is not None:
            await self.reader.generation.aclose()

    async def cancel_reader(self) -> None:
        """Cancel the task that reads."""
        self.reader.scope.cancel()

    async def drop(self) -> None:
        """Let go of it."""
        self.reader.generation = None

    def _cancel_now(self, why: Cancellation | None = None) -> None:
        generation = self.reader.generation
        assert generation is not None
        self.taken.append(generation.cancel(why or cancellation("left by the kit")))

    # -- what came of it -----------------------------------------------------------------------

    async def _wait_reader(self) -> None:
        reader = self.reader
        if self.trial.phase == "after the end" or self._dropped:
            return
        if self.trial.way == "stall" or self.trial.phase == "new":
            with anyio.move_on_after(self.bench.plan.patience):
                await reader.read_on()  # it has to be told of the end
        with anyio.move_on_after(self.bench.plan.patience) as limit:
            await reader.ended.wait()
        if limit.cancelled_caught:
            reader.scope.cancel()
        elif reader.ended_at is not None:
            self.trial.reader_ended = max(0.0, reader.ended_at - reader.left_at)

    async def _canary(self) -> None:
        if not self.needs_telling:
            return
        try:
            self.trial.canary = await self.bench.canary()
        except Exception:  # noqa: BLE001 - a dead engine; that is found elsewhere
            self.trial.canary = None

    async def _prove_in_queue(self) -> None:
        """While the others still fill the engine: whether it leaves the queue just then."""
        if not self.blockers or self.reader.generation is None:
            return
        report = await self.reader.generation.wait_stopped(self.bench.plan.bound)
        went_on = all(not each.ended.is_set() for each in self.blockers)
        self.left_queue = report.stopped and went_on
        if self.bench.engine.capabilities.cancel_queued:
            await self._prove()

    async def _prove(self) -> None:
        with anyio.move_on_after(self.bench.plan.patience):
            if self._dropped:
                await self._prove_dropped()
            elif self.reader.generation is not None:
                await self._prove_held()

    async def _prove_held(self) -> None:
        generation = self.reader.generation
        assert generation is not None
        if generation.cancellation is None:
            self.outcome = await generation.wait_stopped()
            return
        self.outcome = report = await prove_stopped(generation, self.bench.engine)
        self.trial.stopped = report.stopped_after
        self.trial.proof = report.proof
        self.trial.told = report.told_after is not None
        if report.stopped and not self.trial.told:
            self.trial.stopped = 0.0  # it was never submitted
        self.trial.answered = report.answered
        self.trial.tokens_after = report.tokens_after_cancel
        late = await generation.wait_stopped(0)
        self.trial.answered |= late.answered  # its answer may come behind a stronger proof

    async def _prove_dropped(self) -> None:
        if self.trial.phase == "new":
            return
        if not self.phases.at:  # it does not tell: then its books have to
            await self.bench.wait_idle()
            self.trial.stopped = now() - self.reader.left_at
            return
        await self.phases.stopped.wait()
        ended = [at for phase, at in self.phases.at.items() if phase is Phase.CANCELLED]
        if ended:
            self.trial.stopped = max(0.0, ended[0] - self.reader.left_at)

    async def _freeze(self) -> None:
        """Nothing runs now, so nothing may be made."""
        before = self.bench.tokens()
        if before is None or self.bench.engine.failure is not None:
            return
        if not self.blockers and self.made_before is not None:
            made = before - self.made_before - (self.trial.canary is not None)
            self.trial.tokens_after = max(made, self.trial.tokens_after or 0)
        await anyio.sleep(STALL_STEPS * self.bench.pace.step)
        after = self.bench.tokens()
        self.frozen = None if after is None else after - before

    @property
    def finished(self) -> bool:
        """Whether it ended by itself."""
        if self.outcome is None:  # it was dropped
            return Phase.FINISHED in self.phases.at
        return self.outcome.outcome is Outcome.FINISHED


def _point(phase: str) -> int:
    return {"first token": 1, "last token": LAST_TOKENS - 1}.get(phase, DECODE_AT)


_WAITS: Final[Mapping[str, Callable[[Attempt], Awaitable[None]]]] = {
    "queued": Attempt.wait_queued,
    "prefill": Attempt.wait_prefill,
}
_LEAVE: Final[Mapping[str, Callable[[Attempt], Awaitable[None]]]] = {
    "cancel": Attempt.cancel,
    "close": Attempt.close,
    "task": Attempt.cancel_reader,
    "drop": Attempt.drop,
    "thread": Attempt.cancel_in_thread,
    "twice": Attempt.cancel_twice,
    "stall": Attempt.cancel,
}
