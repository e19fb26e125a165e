"""Proof of stop: wait for it, and the ladder of what to do while it does not come."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from typing import Final
from weakref import WeakKeyDictionary

import anyio

from streamkit._core import HOLD_LIMIT, Timer, current_loop, hold, now
from streamkit.errors import UsageBug

from ._base import Capabilities, Engine, Generation, Misbehaviour, Outcome, Proof, StopReport
from ._generation import GenerationHandle

logger = logging.getLogger("streamkit.engines")

BEATS: Final = 10  # looks at the clock in each block_limit: a block is measured to a tenth of it

REMIND_AFTER: Final = 2.0  # seconds from the quarantine to the next abort; then twice as many …
REMIND_AT_MOST: Final = 60.0  # … up to this


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderLimits:
    """How long each rung waits for the proof, in seconds.

    A bound that is shorter than the engine's own step suspects an honest engine.

    Attributes:
        stop_bound: After the abort. A step of a large model on a loaded machine takes 0.1 s, and a
            chunk of prefill half a second.
        again_bound: After the second abort.
        kill_bound: After the kill, where the engine has one.
        block_limit: An event loop that stood still for so long while the proof was awaited is
            reported: nobody else could be told anything meanwhile.

    Raises:
        ValueError: A limit is not a number above 0.
    """

    stop_bound: float = 1.0
    again_bound: float = 1.0
    kill_bound: float = 1.0
    block_limit: float = 0.5

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            seconds: float = getattr(self, name)
            if not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name} must be a number of seconds above 0, got {seconds!r}")

    @property
    def total(self) -> float:
        """Seconds from the first wait to the report, at most."""
        return self.stop_bound + self.again_bound + self.kill_bound


@dataclass(frozen=True, slots=True)
class _Rung:
    name: str
    bound: Callable[[LadderLimits], float]
    act: Callable[[Generation], Awaitable[object]] | None = None
    applies: Callable[[Capabilities], bool] = lambda _: True


_RUNGS: Final[tuple[_Rung, ...]] = (
    _Rung("wait", lambda limits: limits.stop_bound),
    _Rung("again", lambda limits: limits.again_bound, lambda g: g.abort_again()),
    _Rung("kill", lambda limits: limits.kill_bound, lambda g: g.kill(), lambda can: can.kill),
)


async def prove_stopped(
    generation: Generation, engine: Engine, *, limits: LadderLimits | None = None
) -> StopReport:
    """Return the proof that a cancelled generation stopped, or the report that it did not.

    The ladder: wait, abort again, kill where the engine can, quarantine the slot and report. There
    is one for each generation, whoever asks and however often; the limits are those of the first
    to ask, who is the engine itself where it is one of streamkit's. A generation that ended without
    a cancel is reported at once.

    Raises:
        UsageBug: It runs and was not cancelled.

    Cancellation:
        Stops waiting. The ladder is held work and goes on.
    """
    if generation.cancellation is None:
        report = await generation.wait_stopped(0)
        if report.stopped:
            return report
        raise UsageBug(f"{generation.request_id} was not cancelled: there is no stop to prove")
    verdict = start_ladder(generation, engine, limits or LadderLimits())
    await verdict.done.wait()
    late = await generation.wait_stopped(0)
    if verdict.report is None:
        return late
    if late.stopped and not verdict.report.stopped:
        return replace(late, steps=verdict.report.steps, misbehaviour=verdict.report.misbehaviour)
    return verdict.report


class _Verdict:
    """What a ladder leaves behind; it must not refer to the generation, which is its weak key."""

    __slots__ = ("done", "report")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.report: StopReport | None = None


_verdicts: WeakKeyDictionary[object, _Verdict] = WeakKeyDictionary()


def start_ladder(generation: Generation, engine: Engine, limits: LadderLimits) -> _Verdict:
    """Start the ladder of a cancelled generation as held work, unless there is one."""
    key = generation.run if isinstance(generation, GenerationHandle) else generation
    verdict = _verdicts.get(key)
    if verdict is None:
        _verdicts[key] = verdict = _Verdict()
        ladder = _Ladder(generation, engine, limits, verdict)
        # The rungs limit themselves; the margin is for a loop that is late.
        hold(
            ladder.climb,
            name=f"proof of stop of {generation.request_id}",
            limit=limits.total + HOLD_LIMIT,
        )
    return verdict


class _Ladder:
    __slots__ = ("_before", "_engine", "_generation", "_limits", "_pulse", "_steps", "_verdict")

    def __init__(
        self, generation: Generation, engine: Engine, limits: LadderLimits, verdict: _Verdict
    ) -> None:
        self._generation = generation
        self._engine = engine
        self._limits = limits
        self._verdict = verdict
        self._steps: list[str] = []
        self._before: StopReport | None = None  # what was known when the first bound ran out
        self._pulse = _Pulse(limits.block_limit / BEATS)

    async def climb(self) -> None:
        """Go up until there is proof, or nothing more to try."""
        try:
            report = await self._try_rungs()
            blocked = self._pulse.stop()
            misbehaviour = self._suspect(report, blocked)
            if not report.stopped:
                self._steps += ["quarantine", "report"]
                self._engine.quarantine(self._generation)
                self._remind(REMIND_AFTER)
            self._verdict.report = replace(
                report, steps=tuple(self._steps), misbehaviour=misbehaviour
            )
            if misbehaviour is not None:
                self._engine.notice(misbehaviour)
                self._log(self._verdict.report, misbehaviour, blocked)
        finally:
            self._pulse.stop()
            self._verdict.done.set()

    def _remind(self, after: float) -> None:
        """Abort a quarantined generation again, ever more rarely: a second abort gets lost, too.

        A timer each time and no task: nothing has to be waited for at a shutdown.
        """

        async def again() -> None:
            if (await self._generation.wait_stopped(0)).stopped:
                return
            await self._generation.abort_again()
            self._remind(min(2 * after, REMIND_AT_MOST))

        loop = current_loop()
        name = f"another abort of {self._generation.request_id}"
        loop.call_at(loop.now() + after, lambda: hold(again, name=name))

    async def _try_rungs(self) -> StopReport:
        report = await self._generation.wait_stopped(0)
        for rung in _RUNGS:
            if report.stopped or not rung.applies(self._engine.capabilities):
                continue
            report = await self._try(rung)
            if self._before is None and not report.stopped:
                self._before = report
        return report

    async def _try(self, rung: _Rung) -> StopReport:
        error: BaseException | None = None
        # One bound for the act and for the wait: an abort that hangs is no reason to wait twice.
        with anyio.move_on_after(rung.bound(self._limits)):
            if rung.act is not None:
                self._steps.append(rung.name)
                try:
                    await rung.act(self._generation)
                except Exception as failure:
                    logger.exception("%s of %s failed", rung.name, self._generation.request_id)
                    error = failure
            await self._generation.wait_stopped()
        report = await self._generation.wait_stopped(0)
        return report if error is None else replace(report, error=report.error or error)

    def _suspect(self, report: StopReport, blocked: float) -> Misbehaviour | None:
        """Name what was seen, the more certain before the less."""
        can, before = self._engine.capabilities, self._before
        if report.told_after is None and report.stopped:
            return None  # it never reached the engine
        if report.outcome is Outcome.FAILED:
            return Misbehaviour.CRASHED
        if blocked >= self._limits.block_limit and report.stopped:
            return Misbehaviour.BLOCKED  # it explains the delay; what never stopped, it does not
        if before is None:
            silent = can.answers_cancel == "always" and not report.answered
            return Misbehaviour.SILENT if silent else None
        if before.answered:
            return Misbehaviour.RUNS_ON
        if can.fence and (before.proof or Proof.SENT) < Proof.FENCED:
            return Misbehaviour.LATE
        lost = report.stopped and self._steps == ["again"]
        return Misbehaviour.LOST if lost else Misbehaviour.IGNORED

    def _log(self, report: StopReport, misbehaviour: Misbehaviour, blocked: float) -> None:
        facts = (
            f"engine {self._engine.name}, request {self._generation.request_id}: {misbehaviour}; "
            f"proof {report.proof.word if report.proof else 'none'}, "
            f"{_count(report.tokens_after_cancel)} tokens after the cancel, "
            f"rungs needed: {', '.join(report.steps) or 'none'}"
        )
        if blocked >= self._limits.block_limit:
            facts += f"; the event loop stood still for {blocked:.3g} s"
        if report.stopped:
            after = "?" if report.stopped_after is None else f"{report.stopped_after:.3g}"
            logger.warning("%s; stopped %s s after the cancel", facts, after)
            return
        cancellation = self._generation.cancellation
        since = 0.0 if cancellation is None else now() - cancellation.at
        logger.error(
            "%s; still not stopped %.3g s after the cancel: its slot is quarantined until the "
            "engine proves that it is free. If this repeats, restart the engine: each such request "
            "costs a slot",
            facts,
            since,
        )

    def __repr__(self) -> str:
        return f"<_Ladder of {self._generation!r}, {self._steps}>"


def _count(tokens: int | None) -> str:
    return "an unknown number of" if tokens is None else str(tokens)


class _Pulse:
    """Sees an event loop that stands still, while a proof is awaited: how late do timers run?

    It lives for the length of a ladder, one step of the engine when all is well. Nothing else can
    tell a blocked loop from a slow engine: both look like a proof that comes late.
    """

    __slots__ = ("_due", "_every", "_longest", "_loop", "_timer")

    def __init__(self, every: float) -> None:
        self._loop = current_loop()
        self._every = every
        self._longest = 0.0
        self._due = 0.0
        self._timer: Timer | None = None
        self._arm()

    def stop(self) -> float:
        """Return how long the loop stood still at most, in seconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            # Whoever was woken by the end of the block runs before the timer that it delayed.
            self._measure()
        return self._longest

    def _beat(self) -> None:
        self._measure()
        self._arm()

    def _arm(self) -> None:
        self._due = self._loop.now() + self._every
        self._timer = self._loop.call_at(self._due, self._beat)

    def _measure(self) -> None:
        self._longest = max(self._longest, self._loop.now() - self._due)

    def __repr__(self) -> str:
        return f"<_Pulse, longest {self._longest:.3g} s>"
