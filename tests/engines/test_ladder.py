"""The ladder proves a stop, tries what there is while it cannot, and says so when it gives up."""

import gc
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from streamkit._core import Cancellation, Reason, held, now, wait_held
from streamkit.engines import (
    Capabilities,
    EngineStatistics,
    FakeEngine,
    Generation,
    LadderLimits,
    Outcome,
    Proof,
    StopReport,
    prove_stopped,
)
from streamkit.engines._adapter import EngineBase
from streamkit.engines._generation import GenerationHandle
from streamkit.engines._run import EngineRun, Opening
from streamkit.errors import EngineFailed, UsageBug

Ask = Callable[..., Cancellation]


class ScriptedEngine(EngineBase):
    """An engine that does nothing by itself: the test says what it answers, and when."""

    def __init__(self, **claims: Any) -> None:
        super().__init__("scripted")
        self.calls: list[tuple[float, str]] = []
        self.runs: list[ScriptedRun] = []
        self.registers_at_once = True
        self.abort_error: Exception | None = None
        self.kill_takes = 0.0
        self.claims = {
            "cancel_queued": True,
            "cancel_prefill": "chunk",
            "extra_steps": 1,
            "answers_cancel": "running",
            "early_cancel_safe": False,
            "fence": False,
            "observes": False,
            "backpressure": False,
            "thread_safe_cancel": False,
            "kill": False,
            "proof": Proof.ANSWERED,
            **claims,
        }

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(**self.claims)  # type: ignore[arg-type]

    @property
    def failure(self) -> None:
        return None

    def statistics(self) -> EngineStatistics | None:
        return None

    async def aclose(self) -> None:
        self._cancel_all("closing")

    def _make_run(self, opening: Opening) -> EngineRun:
        run = ScriptedRun(opening, self._runs)
        run.engine = self
        self.runs.append(run)
        return run


class ScriptedRun(EngineRun):
    engine: ScriptedEngine

    def said(self, what: str) -> None:
        self.engine.calls.append((now(), what))

    async def kill(self) -> bool:
        self.said("kill")
        await anyio.sleep(self.engine.kill_takes)
        return True

    def _submit(self) -> None:
        self.said("submit")
        if self.engine.registers_at_once:
            self.registered()

    def _abort(self) -> None:
        self.said("abort")
        if self.engine.abort_error is not None:
            raise self.engine.abort_error

    def _tokens_made(self) -> int | None:
        return None


async def read_nothing(generation: Generation) -> None:
    assert [chunk async for chunk in generation] == []


async def cancelled(engine: ScriptedEngine, ask: Ask) -> tuple[Generation, ScriptedRun]:
    """One that was submitted at 0 s and cancelled at 1 s, with a reader that ended."""
    generation = engine.generate("w")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_nothing, generation)
        await anyio.sleep(1.0)
        generation.cancel(ask())
    return generation, engine.runs[-1]


async def test_a_cancel_while_it_is_submitted_is_told_once_the_engine_knows_it(asked: Ask) -> None:
    """An abort that overtakes its request is lost, in vLLM and SGLang."""
    engine = ScriptedEngine()
    engine.registers_at_once = False

    generation, run = await cancelled(engine, asked)
    await anyio.sleep(0.5)
    assert engine.calls == [(0.0, "submit")]
    run.registered()
    run.registered()

    assert engine.calls == [(0.0, "submit"), (1.5, "abort")]
    run.answered()
    report = await prove_stopped(generation, engine)
    assert (report.outcome, report.proof) == ("cancelled", Proof.ANSWERED)
    assert (report.told_after, report.stopped_after) == (0.5, 0.5)
    assert report.misbehaviour is None


async def test_an_engine_that_fails_while_it_is_submitted_ends_it(asked: Ask) -> None:
    engine = ScriptedEngine()
    engine.registers_at_once = False
    generation, run = await cancelled(engine, asked)

    run.failed(ConnectionError("no engine there"))

    report = await prove_stopped(generation, engine)
    assert (report.outcome, report.told_after) == ("failed", None)
    assert report.misbehaviour is None  # it was never told anything that it could disobey
    assert generation.phase == "cancelled"
    assert engine.calls == [(0.0, "submit")]


async def test_an_engine_that_fails_is_the_cause_of_the_readers_error() -> None:
    engine = ScriptedEngine()
    generation = engine.generate("w", request_id="r")
    causes: list[BaseException | None] = []

    async def read() -> None:
        with pytest.raises(EngineFailed, match="the engine failed on r: out of memory") as failed:
            await anext(generation)
        causes.append(failed.value.__cause__)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(1.0)
        error = MemoryError("out of memory")
        engine.runs[0].failed(error)

    assert causes == [error]
    assert (await generation.wait_stopped()).error is error
    assert generation.phase == "failed"


async def test_a_proof_that_is_weaker_than_what_the_engine_can_give_is_not_believed(
    asked: Ask,
) -> None:
    engine = ScriptedEngine(proof=Proof.OBSERVED, fence=True)
    generation, run = await cancelled(engine, asked)

    run.proved(Proof.FENCED)
    run.answered()
    before = await generation.wait_stopped(0.1)
    run.proved(Proof.OBSERVED)
    after = await prove_stopped(generation, engine)

    assert (before.outcome, before.proof, before.answered) == ("running", Proof.FENCED, True)
    assert (after.outcome, after.proof) == ("cancelled", Proof.OBSERVED)


async def test_the_rungs_are_again_kill_quarantine_report_each_after_its_bound(
    asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    engine = ScriptedEngine(kill=True)
    engine.limits = LadderLimits(stop_bound=2.0, again_bound=3.0, kill_bound=4.0)

    generation, run = await cancelled(engine, asked)
    report = await prove_stopped(generation, engine)

    assert engine.calls == [(0.0, "submit"), (1.0, "abort"), (3.0, "abort"), (6.0, "kill")]
    assert now() == 10.0
    assert report.steps == ("again", "kill", "quarantine", "report")
    assert report.proof is Proof.SENT
    assert report.misbehaviour == "ignored"
    assert "an unknown number of tokens after the cancel" in caplog.text
    assert "1 quarantined" in repr(engine)

    run.answered()
    assert "0 in flight, 0 quarantined" in repr(engine)


async def test_an_engine_without_force_is_not_asked_for_it(asked: Ask) -> None:
    engine = ScriptedEngine(kill=False)

    generation, run = await cancelled(engine, asked)
    report = await prove_stopped(generation, engine)

    assert [what for _, what in engine.calls] == ["submit", "abort", "abort"]
    assert report.steps == ("again", "quarantine", "report")
    run.answered()


async def test_the_ladder_stops_at_the_rung_that_helped(asked: Ask) -> None:
    engine = ScriptedEngine(kill=True)
    generation, run = await cancelled(engine, asked)
    await anyio.sleep(1.5)  # between the second abort and the kill

    run.answered()
    report = await prove_stopped(generation, engine)

    assert [what for _, what in engine.calls] == ["submit", "abort", "abort"]
    assert (report.steps, report.misbehaviour) == (("again",), "lost")
    assert report.stopped_after == pytest.approx(1.5)
    await anyio.sleep(10)
    assert len(engine.calls) == 3


async def test_a_quarantined_generation_is_aborted_again_until_an_abort_gets_through(
    asked: Ask,
) -> None:
    engine = FakeEngine(slots=2, step_ms=10, lie="lose_abort:2")
    first, second = (engine.generate("a b c", max_tokens=10_000) for _ in range(2))
    await anext(first)
    await anext(second)
    first.cancel(asked())  # lost: the first of two
    second.cancel(asked())  # obeyed
    report = await prove_stopped(first, engine)  # the second abort is the first of two again

    assert not report.stopped
    assert engine.statistics().quarantined == 1

    stopped = await first.wait_stopped(60)

    assert stopped.outcome is Outcome.CANCELLED
    assert stopped.stopped_after is not None
    assert stopped.stopped_after < 5
    assert engine.statistics().quarantined == 0
    await wait_held(5)


async def test_there_is_one_ladder_however_many_ask(asked: Ask) -> None:
    engine = ScriptedEngine(kill=True)
    generation, run = await cancelled(engine, asked)
    reports: list[object] = []

    async def ask_for_proof() -> None:
        reports.append(await prove_stopped(generation, engine))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask_for_proof)
        engine.abort_for(run.token, asked())

    assert [what for _, what in engine.calls] == ["submit", "abort", "abort", "kill"]
    assert all(report == reports[0] for report in reports)
    assert await prove_stopped(generation, engine) == reports[0]
    run.answered()


async def test_who_stops_asking_does_not_stop_the_ladder(asked: Ask) -> None:
    engine = ScriptedEngine()
    generation, run = await cancelled(engine, asked)

    with anyio.move_on_after(0.5):
        await prove_stopped(generation, engine)
    assert len(held()) == 1
    run.answered()

    assert await wait_held(1) == []
    assert (await prove_stopped(generation, engine)).stopped


async def test_an_abort_that_raises_is_reported_and_tried_again(
    asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    engine = ScriptedEngine()
    engine.abort_error = ConnectionError("no route to the engine")

    generation, run = await cancelled(engine, asked)
    report = await prove_stopped(generation, engine)

    assert [what for _, what in engine.calls] == ["submit", "abort", "abort"]
    assert report.error is engine.abort_error
    assert report.outcome == "running"
    assert f"the abort of {run.request_id} failed" in caplog.text
    assert f"again of {run.request_id} failed" in caplog.text
    run.answered()


async def test_a_kill_that_hangs_is_given_up_at_its_bound(asked: Ask) -> None:
    engine = ScriptedEngine(kill=True)
    engine.kill_takes = math.inf

    generation, run = await cancelled(engine, asked)
    report = await prove_stopped(generation, engine)

    assert now() == 4.0
    assert report.steps == ("again", "kill", "quarantine", "report")
    run.answered()


async def test_an_engine_that_cannot_always_answer_is_not_called_silent(asked: Ask) -> None:
    engine = ScriptedEngine(proof=Proof.OBSERVED, answers_cancel="never")
    generation, run = await cancelled(engine, asked)

    run.proved(Proof.OBSERVED)

    report = await prove_stopped(generation, engine)
    assert (report.answered, report.misbehaviour) == (False, None)


async def test_there_is_no_stop_to_prove_of_what_was_not_cancelled() -> None:
    engine = FakeEngine()
    generation = engine.generate("w", max_tokens=2)
    await anext(generation)

    with pytest.raises(UsageBug, match="was not cancelled"):
        await prove_stopped(generation, engine)
    assert [chunk.tokens async for chunk in generation] == [1]


async def test_a_generation_of_another_engine_cannot_be_quarantined(asked: Ask) -> None:
    engine = ScriptedEngine()
    generation, run = await cancelled(engine, asked)
    run.answered()
    await wait_held(1)

    with pytest.raises(UsageBug, match="no generation of this engine"):
        engine.quarantine(object())  # type: ignore[arg-type]
    engine.quarantine(generation)  # proved: there is nothing to quarantine
    assert "0 quarantined" in repr(engine)


async def test_nothing_keeps_a_generation_that_was_proved_stopped(asked: Ask) -> None:
    engine = FakeEngine()
    generation = engine.generate("w")
    await anext(generation)
    generation.cancel(asked())
    await prove_stopped(generation, engine)
    await anyio.sleep(1)  # trio's cancelled timers take a turn more to go
    run = weakref.ref(engine_run(generation))
    del generation
    gc.collect()

    assert run() is None


def engine_run(generation: Generation) -> EngineRun:
    assert isinstance(generation, GenerationHandle)
    return generation.run


@pytest.mark.parametrize("name", ["stop_bound", "again_bound", "kill_bound", "block_limit"])
@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf])
def test_a_limit_that_is_no_time_is_refused(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds above 0, got {bad}"):
        LadderLimits(**{name: bad})


async def test_a_report_says_no_more_than_is_known() -> None:
    never_read = FakeEngine().generate("w")
    report = await never_read.wait_stopped(0)

    assert (report.outcome, report.proof, report.tokens_made) == ("running", None, None)
    assert never_read.cancel(Cancellation(reason=Reason.REQUESTED, at=now()))
    assert (await never_read.wait_stopped()).proof is Proof.JOINED


class Handmade:
    """A generation that somebody else wrote: the ladder needs no more than the protocol."""

    def __init__(self, ask: Ask) -> None:
        self.request_id = "handmade"
        self.cancellation = ask()
        self.stops = 0

    async def wait_stopped(self, timeout: float | None = None) -> StopReport:
        if self.stops:
            return StopReport(outcome=Outcome.CANCELLED, proof=Proof.ANSWERED, told_after=0.0)
        await anyio.sleep(math.inf if timeout is None else timeout)
        return StopReport(outcome=Outcome.RUNNING, told_after=0.0)

    async def abort_again(self) -> None:
        self.stops += 1


async def test_a_generation_of_another_make_is_proved_stopped_too(asked: Ask) -> None:
    generation: Any = Handmade(asked)
    engine = ScriptedEngine()

    first, second = [await prove_stopped(generation, engine) for _ in range(2)]

    assert first == second
    assert (first.outcome, first.steps, first.misbehaviour) == ("cancelled", ("again",), "lost")
    assert generation.stops == 1


async def test_a_ladder_that_breaks_leaves_nobody_waiting(
    asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    engine = ScriptedEngine()
    generation, run = await cancelled(engine, asked)
    engine.claims.clear()  # from now on the engine cannot even say what it can

    report = await prove_stopped(generation, engine)

    assert (report.outcome, report.steps) == ("running", ())
    assert f"proof of stop of {run.request_id} failed" in caplog.text


@pytest.mark.blocks_the_loop
async def test_a_threads_cancel_and_the_end_may_cross_each_other(asked: Ask) -> None:
    engine = ScriptedEngine(proof=Proof.OBSERVED)
    generation = engine.generate("w")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_nothing, generation)
        await anyio.sleep(1.0)
        run = engine.runs[0]
        thread = threading.Thread(target=generation.cancel, args=[asked()])
        thread.start()
        thread.join()  # cancelled, and the loop has not heard of it

        run.answered()
        run.proved(Proof.OBSERVED)

        assert generation.phase == "cancelled"
    await checkpoint()

    assert [what for _, what in engine.calls] == ["submit"]
    report = await prove_stopped(generation, engine)
    assert (report.outcome, report.told_after) == ("cancelled", None)


async def test_what_an_engine_says_twice_or_too_late_changes_nothing(asked: Ask) -> None:
    engine = ScriptedEngine()
    generation, run = await cancelled(engine, asked)
    run.answered()
    report = await generation.wait_stopped()

    run.answered()
    run.started()
    run.failed(LookupError())
    run.proved(Proof.JOINED)
    await generation.abort_again()

    assert await generation.wait_stopped() == report
    assert [what for _, what in engine.calls] == ["submit", "abort"]
    assert await wait_held(1) == []


async def test_an_engine_that_is_told_to_kill_what_it_does_not_hold_says_no() -> None:
    generation = FakeEngine(kill=True).generate("w")

    assert not await generation.kill()
