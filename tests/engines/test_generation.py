"""A generation can be cancelled in any state, from anywhere, once; its reader never waits."""

import gc
import logging
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from streamkit._core import (
    NEVER,
    Cancellation,
    CancelSource,
    Phase,
    Reason,
    now,
    token_var,
    wait_held,
)
from streamkit.engines import FakeEngine, Generation, GenerationRequest, Proof, prove_stopped
from streamkit.errors import UsageBug
from streamkit.testing import every_cancel_point, every_moment

STEP = 0.02
Ask = Callable[..., Cancellation]


def at_step(number: float) -> Any:
    return pytest.approx(number * STEP)


async def test_a_cancel_takes_effect_at_the_end_of_the_running_step(asked: Ask) -> None:
    engine = FakeEngine()
    generation = engine.generate("w")
    await anext(generation)
    await anyio.sleep(0.3 * STEP)

    generation.cancel(asked())
    report = await prove_stopped(generation, engine)

    assert now() == at_step(2)
    assert report.outcome == "cancelled"
    assert report.proof is Proof.OBSERVED
    assert report.answered
    assert report.told_after == 0.0
    assert report.stopped_after == at_step(0.7)
    assert (report.tokens_made, report.tokens_after_cancel) == (2, 1)
    assert (report.steps, report.misbehaviour) == ((), None)
    assert generation.phase == "cancelled"
    assert engine.statistics().running == 0


async def test_a_cancel_takes_a_waiting_request_out_of_the_queue(asked: Ask) -> None:
    engine = FakeEngine(slots=1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, engine.generate("w", max_tokens=10))
        await anyio.sleep(0.5 * STEP)
        queued = engine.generate("w", request_id="queued")
        tasks.start_soon(drain, queued)
        await anyio.sleep(STEP)
        assert queued.phase == "queued"
        queued.cancel(asked())
        report = await prove_stopped(queued, engine)
        assert now() == at_step(2)

    record = engine.log.request("queued")
    assert record is not None
    assert (record.steps, record.tokens, record.end) == (0, 0, "aborted")
    assert report.tokens_made == 0


async def test_a_cancel_in_prefill_takes_effect_at_the_end_of_the_chunk(asked: Ask) -> None:
    engine = FakeEngine()
    generation = engine.generate("w " * 5000, request_id="long")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, generation)
        await anyio.sleep(2.5 * STEP)
        assert generation.phase == "prefill"
        generation.cancel(asked())
        await prove_stopped(generation, engine)

    assert now() == at_step(3)
    record = engine.log.request("long")
    assert record is not None
    assert (record.prefilled, record.tokens, record.steps_after_cancel) == (3 * 512, 0, 1)


async def test_the_reader_ends_at_once_and_does_not_wait_for_the_engine(asked: Ask) -> None:
    engine = FakeEngine(step_ms=10_000, lie="ignore_abort")
    generation = engine.generate("w")
    ended: list[float] = []

    async def read() -> None:
        await drain(generation)
        ended.append(now())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(3.0)
        generation.cancel(asked())

    assert ended == [3.0]
    await engine.aclose()
    await wait_held(1)


async def test_only_the_first_cancel_counts(asked: Ask) -> None:
    engine = FakeEngine()
    generation = engine.generate("w", request_id="r")
    await anext(generation)

    assert generation.cancel(asked("first"))
    assert not generation.cancel(asked("second"))
    await prove_stopped(generation, engine)
    assert not generation.cancel(asked("third"))

    assert generation.cancellation is not None
    assert generation.cancellation.detail == "first"
    assert generation.cancellation.phase == "decode"
    record = engine.log.request("r")
    assert record is not None
    assert record.aborts == 1


@pytest.mark.parametrize(
    ("said", "recorded"), [("prefill", "queued"), ("decode", "queued"), ("sending", "sending")]
)
async def test_of_what_is_inside_the_engine_the_engine_knows_best(
    asked: Ask, said: str, recorded: str
) -> None:
    """A reader takes its queue for prefill; what comes behind it, only the reader knows."""
    engine = FakeEngine(slots=1)
    first, second = engine.generate("w"), engine.generate("w")
    await anext(first)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, second)
        await anyio.sleep(3 * STEP)
        second.cancel(asked().seen_in(Phase(said)))
    await first.aclose()
    await prove_stopped(first, engine)

    assert second.cancellation is not None
    assert second.cancellation.phase == recorded


async def test_what_ended_by_itself_is_never_aborted(asked: Ask) -> None:
    engine = FakeEngine()
    generation = engine.generate("w", max_tokens=2, request_id="r")
    await drain(generation)

    assert not generation.cancel(asked())
    await generation.aclose()

    report = await generation.wait_stopped()
    assert (report.outcome, report.proof) == ("finished", Proof.ANSWERED)
    assert report == await prove_stopped(generation, engine)
    assert generation.cancellation is None
    record = engine.log.request("r")
    assert record is not None
    assert (record.aborts, record.end) == (0, "completed")


async def test_what_is_cancelled_before_it_is_submitted_never_is(asked: Ask) -> None:
    engine = FakeEngine()
    phases: list[str] = []
    generation = engine.open(GenerationRequest(prompt="w"), request_id="r", on_phase=phases.append)

    generation.cancel(asked())

    assert [chunk async for chunk in generation] == []
    report = await prove_stopped(generation, engine)
    assert (report.outcome, report.proof, report.told_after) == ("cancelled", Proof.JOINED, None)
    assert phases == ["aborting", "cancelled"]
    assert engine.log.request("r") is None
    assert engine.log.steps == 0


async def test_phases_are_told_as_they_are_entered(asked: Ask) -> None:
    engine = FakeEngine(slots=1)
    phases: list[tuple[float, str]] = []

    def listen(phase: str) -> None:
        phases.append((round(now() / STEP, 3), phase))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, engine.generate("w", max_tokens=2))
        await anyio.sleep(0.5 * STEP)
        generation = engine.open(GenerationRequest(prompt="w " * 600), on_phase=listen)
        tasks.start_soon(drain, generation)
        await anyio.sleep(5 * STEP)
        generation.cancel(asked())

    await prove_stopped(generation, engine)
    assert phases == [
        (0.5, "queued"),
        (2.0, "prefill"),
        (4.0, "decode"),
        (5.5, "aborting"),
        (6.0, "cancelled"),
    ]


async def test_a_phase_listener_that_fails_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: str) -> None:
        raise LookupError("the listener's own bug")

    generation = FakeEngine().open(
        GenerationRequest(prompt="w", max_tokens=2), request_id="r", on_phase=fail
    )

    assert await drain(generation) == 2
    assert "a phase listener of r failed" in caplog.text


async def test_it_hangs_on_the_current_token() -> None:
    engine = FakeEngine()
    source = CancelSource()
    token_var.set(source.token)
    generation = engine.generate("w")
    await anext(generation)

    source.cancel(Reason.CLIENT_DISCONNECT, "gone")

    assert generation.phase == "aborting"  # in the same turn
    assert generation.cancellation is not None
    assert generation.cancellation.reason == "client_disconnect"
    await prove_stopped(generation, engine)


async def test_a_token_that_is_cancelled_already_lets_nothing_start() -> None:
    engine = FakeEngine()
    source = CancelSource()
    source.cancel(Reason.DEADLINE)

    generation = engine.open(GenerationRequest(prompt="w"), token=source.token)

    assert [chunk async for chunk in generation] == []
    assert generation.cancellation is not None
    assert generation.cancellation.reason == "deadline"
    assert engine.log.steps == 0


async def test_nothing_is_left_on_a_token_that_lives_on(asked: Ask) -> None:
    engine = FakeEngine(max_queued=0, slots=1)
    source = CancelSource()

    def opened(**options: Any) -> Generation:
        return engine.open(
            GenerationRequest(prompt="w", max_tokens=2), token=source.token, **options
        )

    whole, cut = opened(), opened()
    await drain(whole)
    await anext(cut)
    refused = opened()
    await anyio.sleep(STEP / 2)
    cut.cancel(asked())
    await prove_stopped(cut, engine)
    unread = opened(request_id="unread")
    del unread, refused

    assert not source.token.has_listeners


async def test_aborting_for_a_token_cancels_all_that_was_opened_under_it(asked: Ask) -> None:
    engine = FakeEngine()
    mine, others = CancelSource(), CancelSource()
    request = GenerationRequest(prompt="w")
    first, second = (engine.open(request, token=mine.token) for _ in range(2))
    other = engine.open(request, token=others.token)
    child = engine.open(request, token=mine.token.child().token)
    for generation in (first, second, other, child):
        await anext(generation)

    engine.abort_for(mine.token, asked())
    engine.abort_for(mine.token, asked())

    assert [g.phase for g in (first, second, other, child)] == [
        "aborting",
        "aborting",
        "decode",
        "decode",
    ]
    mine.cancel(Reason.REQUESTED)
    assert child.phase == "aborting"
    others.cancel(Reason.REQUESTED)
    assert await wait_held(1) == []  # the proofs
    assert engine.statistics().running == 0


async def test_aborting_for_a_token_that_has_nothing_is_fine(asked: Ask) -> None:
    FakeEngine().abort_for(NEVER, asked())


@pytest.mark.asyncio_only  # trio's mock clock does not wait for threads
async def test_a_cancel_from_a_thread_reaches_the_engine(asked: Ask) -> None:
    engine = FakeEngine()
    generation = engine.generate("w")
    await anext(generation)
    ask = asked()

    told = await anyio.to_thread.run_sync(generation.cancel, ask)

    assert told
    assert [chunk async for chunk in generation] == []
    assert (await prove_stopped(generation, engine)).proof is Proof.OBSERVED


async def test_closing_while_another_task_reads_ends_that_reader() -> None:
    engine = FakeEngine(step_ms=1000)
    generation = engine.generate("w")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, generation)
        await anyio.sleep(0.5)
        await generation.aclose()
        await generation.aclose()

    assert now() == 0.5
    assert generation.cancellation is not None
    assert generation.cancellation.detail == "closed before its end"
    await prove_stopped(generation, engine)


async def test_a_reader_that_is_cancelled_cancels_the_generation() -> None:
    engine = FakeEngine()
    generation = engine.generate("w")

    with anyio.move_on_after(1.5 * STEP):
        await drain(generation)

    assert generation.phase == "aborting"
    assert generation.cancellation is not None
    assert generation.cancellation.reason == "requested"
    assert generation.cancellation.detail == "the task that read it was cancelled"
    await prove_stopped(generation, engine)


async def test_a_second_reader_is_an_error_and_does_not_disturb_the_first() -> None:
    generation = FakeEngine().generate("w", max_tokens=2)
    tokens: list[int] = []

    async def read() -> None:
        tokens.append(await drain(generation))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(STEP / 2)
        with pytest.raises(UsageBug, match="one reader"):
            await anext(generation)

    assert tokens == [2]


async def test_a_generation_that_is_dropped_is_aborted_and_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = FakeEngine()
    async for _ in engine.generate("w", request_id="dropped"):
        break
    gc.collect()
    await checkpoint()  # never told at once: a collection may interrupt anything
    await checkpoint()

    record = engine.log.request("dropped")
    assert record is not None
    assert record.told_at == at_step(1)
    assert "dropped was dropped while it was running" in caplog.text
    assert await wait_held(1) == []


@pytest.mark.parametrize("how", ["whole", "closed", "never read", "cancelled"])
async def test_a_generation_that_ended_is_dropped_in_silence(
    how: str, asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine()
    generation = engine.generate("w", max_tokens=2)
    if how != "never read":
        await anext(generation)
    if how == "whole":
        await drain(generation)
    elif how == "closed":
        await generation.aclose()
    elif how == "cancelled":
        generation.cancel(asked())
    del generation
    gc.collect()
    await wait_held(1)
    await anyio.sleep(1)

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_usage_counts_what_was_handed_over_and_what_was_not(asked: Ask) -> None:
    engine = FakeEngine()
    generation = engine.generate("two words", n=2)
    assert generation.usage.prompt_tokens == 0  # the engine has not said so
    for _ in range(3):
        await anext(generation)
    await anyio.sleep(3.5 * STEP)
    running = generation.usage

    generation.cancel(asked())
    await prove_stopped(generation, engine)

    assert (running.prompt_tokens, running.handed_over, running.discarded) == (2, 3, 0)
    usage = generation.usage
    assert (usage.handed_over, usage.discarded, usage.produced) == (3, 9, 12)
    assert engine.log.tokens == 12


async def test_what_was_not_read_of_a_whole_answer_counts_as_discarded() -> None:
    generation = FakeEngine().generate("w", max_tokens=5)
    await anext(generation)
    await anyio.sleep(1)
    await generation.aclose()

    assert generation.cancellation is None
    assert (generation.usage.handed_over, generation.usage.discarded) == (1, 4)


async def test_waiting_for_a_stop_cancels_nothing() -> None:
    generation = FakeEngine().generate("w", max_tokens=10)
    await anext(generation)

    report = await generation.wait_stopped(3.5 * STEP)

    assert (report.outcome, report.proof, report.stopped) == ("running", None, False)
    assert report.tokens_made == 4
    assert generation.cancellation is None
    assert await drain(generation) == 9


async def test_a_generation_shows_how_far_it_is(asked: Ask) -> None:
    engine = FakeEngine()
    generation = engine.generate("w", request_id="r")
    assert "r new/queued" in repr(generation)
    await anext(generation)
    assert "r live/decode" in repr(generation)
    assert "1 in flight" in repr(engine)
    generation.cancel(asked("because"))
    assert "r ending/aborting cancelled (requested) in phase decode: because" in repr(generation)
    await prove_stopped(generation, engine)
    assert "r ended/cancelled" in repr(generation)
    assert "0 in flight" in repr(engine)


async def test_it_can_be_opened_where_no_loop_runs() -> None:
    generation = await anyio.to_thread.run_sync(lambda: FakeEngine().generate("w", max_tokens=3))

    assert await drain(generation) == 3


def test_it_can_be_cancelled_where_no_loop_runs() -> None:
    generation = FakeEngine().generate("w", max_tokens=3)

    assert generation.cancel(Cancellation(reason=Reason.REQUESTED, at=0.0))
    assert generation.phase == "cancelled"


@pytest.mark.asyncio_only
@pytest.mark.parametrize("how", ["scope", "task"])
async def test_a_reader_cancelled_at_any_await_leaves_the_engine_idle(how: Any) -> None:
    engine = FakeEngine(slots=1)

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain, engine.generate("w " * 600, max_tokens=3))
            await drain(engine.generate("w", max_tokens=3))

    report = await every_cancel_point(scenario, check=lambda: check_idle(engine), how=how)

    assert report.runs > 3


@pytest.mark.asyncio_only
async def test_a_token_cancelled_at_any_moment_leaves_the_engine_idle() -> None:
    engine = FakeEngine(slots=1)
    sources: list[CancelSource] = []

    async def scenario() -> None:
        sources.append(CancelSource())
        token_var.set(sources[-1].token)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain, engine.generate("w " * 600, max_tokens=3))
            await drain(engine.generate("w", max_tokens=3))

    def leave() -> None:
        sources[-1].cancel(Reason.CLIENT_DISCONNECT)

    report = await every_moment(scenario, leave, check=lambda: check_idle(engine))

    assert report.runs > 10


async def check_idle(engine: FakeEngine) -> None:
    assert await wait_held(1) == []
    books = engine.statistics()
    assert (books.running, books.queued, books.quarantined) == (0, 0, 0)
    assert "0 in flight" in repr(engine)
    assert all(record.aborts <= 1 for record in engine.log.requests())
    assert all(record.steps_after_cancel <= 1 for record in engine.log.requests())
    assert not books.misbehaviours


async def drain(generation: Generation) -> int:
    return sum([chunk.tokens async for chunk in generation])
