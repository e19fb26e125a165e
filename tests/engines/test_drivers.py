"""An adapter says how its engine is called; the drivers get a cancel right in every state."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import anyio
import pytest

from streamkit._core import Cancellation, now, wait_held
from streamkit.engines import (
    AsyncEngine,
    Chunk,
    Engine,
    Generation,
    GenerationRequest,
    Job,
    LadderLimits,
    Misbehaviour,
    Proof,
    StopReport,
    prove_stopped,
)
from streamkit.engines._pumped import LOOK_AT_MOST
from streamkit.errors import EngineFailed
from streamkit.testing import ThreadGate, every_cancel_point, every_moment

from .adapters import CONNECTION, THREAD, ById, ByIdAnswering, Connected, Threaded
from .stand_in import WordEngine

STEP = 0.02
Ask = Callable[..., Cancellation]
pytestmark = pytest.mark.asyncio_only  # the stand-in engine is asyncio's


async def drain(generation: Generation) -> int:
    return sum([chunk.tokens async for chunk in generation])


async def cut(engine: Engine, generation: Generation, asked: Ask) -> StopReport:
    generation.cancel(asked())
    assert [chunk async for chunk in generation] == []
    report = await prove_stopped(generation, engine)
    await wait_held(10)
    return report


async def test_by_id_closes_aborts_fences_and_looks(asked: Ask) -> None:
    engine = ById(WordEngine())
    generation = engine.generate("w")
    await anext(generation)

    report = await cut(engine, generation, asked)

    assert (report.outcome, report.proof) == ("cancelled", Proof.OBSERVED)
    assert report.stopped_after == pytest.approx(STEP)
    assert report.misbehaviour is None
    assert len(engine.engine.aborts) == 1
    assert not engine.engine.entries


async def test_an_answer_is_whole_and_read_in_order() -> None:
    engine = ById(WordEngine())

    chunks = [chunk async for chunk in engine.generate("w", max_tokens=5)]

    assert "".join(chunk.text for chunk in chunks) == "w1 w2 w3 w4 w5 "
    assert chunks[-1].finish_reason == "length"
    assert engine.engine.aborts == []


async def test_an_abort_waits_until_the_engine_knows_the_request(asked: Ask) -> None:
    """It would be lost, and the engine would work to the end for nobody."""

    async def scenario() -> None:
        nonlocal engine, generation
        engine = ById(WordEngine())
        generation = engine.generate("w", max_tokens=3)
        await drain(generation)
        await engine.aclose()
        await wait_held(10)

    def leave() -> None:
        generation.cancel(asked())

    def check() -> None:
        assert not engine.engine.entries
        assert engine.engine.steps <= 4
        if generation.cancellation is not None:
            assert engine.statistics().misbehaviours == {}

    engine = generation = None  # type: ignore[assignment]
    report = await every_moment(scenario, leave, check=check)
    assert report.runs > 10


async def test_a_reader_may_be_cancelled_at_every_await(asked: Ask) -> None:
    async def scenario() -> None:
        nonlocal engine
        engine = ById(WordEngine())
        await drain(engine.generate("w", max_tokens=3))
        await engine.aclose()

    async def check() -> None:
        await wait_held(10)
        assert not engine.engine.entries
        await engine.aclose()

    engine = None  # type: ignore[assignment]
    for how in ("scope", "task"):
        report = await every_cancel_point(scenario, check=check, how=how)
        assert report.runs > 3


async def test_what_is_cancelled_before_its_pump_began_is_never_submitted(asked: Ask) -> None:
    engine = ById(WordEngine())
    generation = engine.generate("w")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, generation)
        await anyio.lowlevel.checkpoint()
        generation.cancel(asked())

    report = await prove_stopped(generation, engine)

    assert (report.outcome, report.told_after) == ("cancelled", None)
    assert engine.engine.steps == 0


async def test_the_engines_id_is_never_the_callers() -> None:
    """An engine that matches by prefix would end job-10 with job-1."""
    engine = ById(WordEngine(slots=2, flaw="prefix"))
    one = engine.generate("w", request_id="job-1")
    ten = engine.generate("w", request_id="job-10", max_tokens=10)
    await anext(one)
    await anext(ten)
    assert {len(each) for each in engine.engine.entries} == {32}

    await one.aclose()

    assert await drain(ten) == 9
    await wait_held(10)


async def test_one_that_answers_is_read_to_its_last_word(asked: Ask) -> None:
    engine = ByIdAnswering(WordEngine())
    generation = engine.generate("w")
    await anext(generation)

    report = await cut(engine, generation, asked)

    assert report.answered
    assert report.proof is Proof.OBSERVED
    assert report.misbehaviour is None


async def test_one_that_does_not_answer_is_closed_after_its_drain(asked: Ask) -> None:
    engine = ByIdAnswering(WordEngine(flaw="deaf"), drain=0.5)
    engine.limits = LadderLimits(stop_bound=2.0)
    generation = engine.generate("w", max_tokens=60)
    await anext(generation)

    report = await cut(engine, generation, asked)

    assert not report.answered
    assert report.stopped_after is not None
    assert 59 * STEP <= report.stopped_after <= 59 * STEP + LOOK_AT_MOST  # the engine's own end
    await engine.aclose()


async def test_a_connection_is_closed_and_may_take_its_time_over_it(asked: Ask) -> None:
    engine = Connected()
    generation = engine.generate("w")
    await anext(generation)

    report = await cut(engine, generation, asked)

    assert (report.outcome, report.proof) == ("cancelled", Proof.CLOSED)
    assert report.stopped_after == pytest.approx(STEP)
    assert (engine.inside.opened, engine.inside.closed) == (1, 1)


async def test_a_reader_that_walks_away_closes_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Connected()
    generation = engine.generate("w")
    await anext(generation)

    del generation
    await anyio.sleep(5 * STEP)

    assert engine.inside.closed == 1
    assert "was dropped while it was running" in caplog.text


class Scripted(AsyncEngine):
    """Its stream is what the test says."""

    def __init__(self, script: Callable[[Job], AsyncGenerator[Chunk]]) -> None:
        super().__init__("scripted", CONNECTION)
        self.script = script

    def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        return self.script(job)


async def test_what_ends_without_a_finish_reason_is_no_whole_answer() -> None:
    async def broken(job: Job) -> AsyncGenerator[Chunk]:
        yield Chunk("w")

    generation = Scripted(broken).generate("w", request_id="r")

    await anext(generation)
    with pytest.raises(EngineFailed, match="without a finish reason for 1 of 1 choices"):
        await anext(generation)


async def test_an_error_of_the_engine_reaches_the_reader() -> None:
    async def failing(job: Job) -> AsyncGenerator[Chunk]:
        yield Chunk("w")
        raise LookupError("no such token")

    generation = Scripted(failing).generate("w")

    await anext(generation)
    with pytest.raises(EngineFailed) as caught:
        await anext(generation)
    assert isinstance(caught.value.__cause__, LookupError)


async def test_an_engine_that_dies_is_told_to_everybody_at_once() -> None:
    engine = ById(WordEngine(slots=2))
    running = [engine.generate("w") for _ in range(4)]
    errors: list[BaseException] = []

    async def read(generation: Generation) -> None:
        try:
            await drain(generation)
        except EngineFailed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for generation in running:
            tasks.start_soon(read, generation)
        await anyio.sleep(3 * STEP)
        engine.engine.die()

    assert len(errors) == 4
    assert engine.failure is engine.engine.dead
    with pytest.raises(EngineFailed, match="is dead"):
        await anext(engine.generate("w"))


async def test_an_abort_that_fails_is_in_the_report(
    asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(job: Job) -> AsyncGenerator[Chunk]:
        def abort() -> None:
            raise ConnectionError("no route to the engine")

        job.registered(abort)
        yield Chunk("w")
        await anyio.sleep(10)

    engine = Scripted(stream)
    engine._capabilities = replace(CONNECTION, proof=Proof.ANSWERED)
    generation = engine.generate("w", request_id="r")
    await anext(generation)

    generation.cancel(asked())
    await wait_held(10)

    report = await generation.wait_stopped(0)
    assert isinstance(report.error, ConnectionError)
    assert "the abort of r failed" in caplog.text


async def test_a_stream_that_swallows_its_cancel_does_not_hold_its_reader(asked: Ask) -> None:
    async def stubborn(job: Job) -> AsyncGenerator[Chunk]:
        job.registered()
        yield Chunk("w")
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1.5)

    engine = Scripted(stubborn)
    generation = engine.generate("w")
    await anext(generation)
    began = now()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, generation)
        await anyio.sleep(STEP)
        generation.cancel(asked())
    assert now() - began == pytest.approx(STEP)
    await prove_stopped(generation, engine)


async def test_books_know_what_was_handed_over_and_what_was_not(asked: Ask) -> None:
    engine = ById(WordEngine())
    generation = engine.generate("w")
    for _ in range(3):
        await anext(generation)
    await anyio.sleep(2.5 * STEP)

    await cut(engine, generation, asked)

    assert generation.usage.handed_over == 3
    assert generation.usage.produced >= 5


# -- threads -----------------------------------------------------------------------------------

threads = pytest.mark.realtime


@threads
async def test_a_thread_is_left_before_its_slot_is_free(asked: Ask) -> None:
    engine = Threaded()
    generation = engine.generate("w")
    await anext(generation)

    report = await cut(engine, generation, asked)

    assert (report.outcome, report.proof) == ("cancelled", Proof.JOINED)
    assert report.tokens_after_cancel is not None
    assert report.tokens_after_cancel <= 1
    assert engine.statistics().running == 0
    assert await drain(engine.generate("w", max_tokens=3)) == 3


@threads
async def test_a_long_step_asks_whether_it_is_cancelled(asked: Ask) -> None:
    engine = Threaded()
    generation = engine.generate("w " * 50_000)  # 1,000 layers, 2 s
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, generation)
        await anyio.sleep(0.05)
        report = await cut(engine, generation, asked)

    assert report.proof is Proof.JOINED
    assert report.stopped_after is not None
    assert report.stopped_after < 0.5
    assert engine.statistics().tokens == 0


@threads
async def test_who_waits_for_a_thread_leaves_the_queue_at_once(asked: Ask) -> None:
    engine = Threaded()
    with ThreadGate() as gate:
        engine.work = lambda _: gate.wait()
        first, second = engine.generate("w", max_tokens=2), engine.generate("w")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain, first)
            await anyio.sleep(0.01)
            tasks.start_soon(drain, second)
            await anyio.sleep(0.01)
            assert (engine.statistics().running, engine.statistics().queued) == (1, 1)
            report = await cut(engine, second, asked)
            assert (report.proof, engine.statistics().queued) == (Proof.JOINED, 0)
            gate.open()

    assert len(engine.threads) == 1


@threads
async def test_a_slow_reader_makes_the_thread_wait() -> None:
    engine = Threaded(step=0.0001)
    generation = engine.generate("w", max_tokens=10_000)
    await anext(generation)
    await anyio.sleep(0.3)
    made = engine.statistics().tokens

    await anyio.sleep(0.1)

    assert made == engine.statistics().tokens < 100
    await generation.aclose()
    await prove_stopped(generation, engine)


@threads
async def test_a_thread_that_had_left_already_is_proof_enough(asked: Ask) -> None:
    engine = Threaded()
    generation = engine.generate("w", max_tokens=30)  # more than its reader's side keeps, by far
    await anext(generation)
    while engine.statistics().running:  # noqa: ASYNC110 - the books have no event
        await anyio.sleep(0.001)
    generation.cancel(asked())

    report = await prove_stopped(generation, engine)

    assert (report.proof, report.misbehaviour) == (Proof.JOINED, None)


@threads
async def test_a_slot_of_a_thread_that_does_not_stop_is_not_given_away(asked: Ask) -> None:
    engine = Threaded(limits=LadderLimits(stop_bound=0.1, again_bound=0.1))
    with ThreadGate() as gate:
        engine.work = lambda _: gate.wait()
        generation = engine.generate("w")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain, generation)
            await anyio.sleep(0.05)
            generation.cancel(asked())
            report = await prove_stopped(generation, engine)
        assert report.outcome == "running"
        assert report.misbehaviour is Misbehaviour.IGNORED
        assert engine.statistics().quarantined == engine.statistics().running == 1
        gate.open()
    late = await generation.wait_stopped(5)

    assert (late.outcome, late.proof) == ("cancelled", Proof.JOINED)
    assert engine.statistics().running == engine.statistics().quarantined == 0
    await wait_held(10)


@threads
async def test_a_failure_in_the_thread_is_the_readers(asked: Ask) -> None:
    def fail(job: Job) -> None:
        raise MemoryError("no room for the cache")

    engine = Threaded()
    engine.work = fail

    with pytest.raises(EngineFailed) as caught:
        await drain(engine.generate("w"))
    assert isinstance(caught.value.__cause__, MemoryError)
    engine.work = None
    assert await drain(engine.generate("w", max_tokens=2)) == 2


@threads
async def test_an_error_that_says_aborted_is_the_end_of_a_cancelled_one(
    asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(job: Job) -> None:
        while not job.cancelled:
            pass
        raise RuntimeError("llama_decode returned 2")

    engine = Threaded()
    engine.work = interrupted
    generation = engine.generate("w")
    with caplog.at_level(logging.WARNING):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain, generation)
            await anyio.sleep(0.02)
            report = await cut(engine, generation, asked)

    assert (report.outcome, report.proof) == ("cancelled", Proof.JOINED)
    assert not caplog.records
    assert engine.capabilities == THREAD


async def test_a_request_the_engine_can_never_serve_is_refused_in_open() -> None:
    class Small(Connected):
        def check(self, request: GenerationRequest) -> None:
            if (request.max_tokens or 0) > 10:
                raise ValueError("max_tokens must be at most 10")

    with pytest.raises(ValueError, match="at most 10"):
        Small().open(GenerationRequest(prompt="w", max_tokens=11))
