"""Each lie of the fake engine is noticed, named, counted and contained."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from streamkit._core import Cancellation, now, wait_held
from streamkit.engines import (
    FakeEngine,
    Generation,
    LadderLimits,
    Misbehaviour,
    Proof,
    StopReport,
    prove_stopped,
)
from streamkit.engines._fake._lies import forms
from streamkit.errors import EngineFailed

STEP = 0.02
Ask = Callable[..., Cancellation]


async def cancel_one(
    engine: FakeEngine, ask: Ask, *, max_tokens: int = 500
) -> tuple[Generation, StopReport]:
    generation = engine.generate("w", max_tokens=max_tokens, request_id="cut")
    await anext(generation)
    await anyio.sleep(STEP / 2)  # in the middle of a step, and so are the ladder's rungs
    generation.cancel(ask())
    assert [chunk async for chunk in generation] == []  # contained: its reader never waits
    return generation, await prove_stopped(generation, engine)


async def drain(generation: Generation) -> int:
    return sum([chunk.tokens async for chunk in generation])


@pytest.mark.parametrize(
    ("lie", "name", "rungs", "stopped_after"),
    [
        ("ignore_abort", "ignored", ("again", "kill"), 2.0),
        ("lose_abort:2", "lost", ("again",), 1.0 + STEP / 2),
        ("ack_and_run_on", "runs_on", ("again", "kill"), 2.0),
        ("answer_late:1.5", "late", ("again",), 1.5 + STEP / 2),
        ("answer_late:7", "late", ("again", "kill"), 2.0),
        ("never_answer", "silent", (), STEP / 2),
    ],
)
async def test_a_lie_is_named_and_ended_by_force_where_there_is_force(
    lie: str, name: str, rungs: tuple[str, ...], stopped_after: float, asked: Ask
) -> None:
    engine = FakeEngine(lie=lie, kill=True)

    generation, report = await cancel_one(engine, asked)

    assert report.misbehaviour == name
    assert report.steps == rungs
    assert (report.outcome, report.proof) == ("cancelled", Proof.OBSERVED)
    assert report.stopped_after == pytest.approx(stopped_after)
    assert generation.phase == "cancelled"
    assert engine.statistics().misbehaviours == {name: 1}
    assert engine.statistics().quarantined == engine.statistics().running == 0
    await engine.aclose()


@pytest.mark.parametrize(
    ("lie", "name", "proof", "free_at"),
    [
        # 500 tokens at 20 ms: it runs to its end
        ("ignore_abort", "ignored", Proof.FENCED, 500 * STEP),
        ("ack_and_run_on", "runs_on", Proof.FENCED, 500 * STEP),
        ("answer_late:7", "late", Proof.SENT, 7 + 2 * STEP),
    ],
)
async def test_without_force_the_slot_is_quarantined_until_the_engine_is_done_with_it(
    lie: str,
    name: str,
    proof: Proof,
    free_at: float,
    asked: Ask,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = FakeEngine(lie=lie)

    generation, report = await cancel_one(engine, asked)

    assert now() == pytest.approx(2 + 1.5 * STEP)
    assert report.misbehaviour == name
    assert report.steps == ("again", "quarantine", "report")
    assert (report.outcome, report.proof) == ("running", proof)
    assert report.answered == (name == "runs_on")
    assert report.tokens_after_cancel == 100
    assert generation.phase == "quarantined"
    assert engine.statistics().quarantined == 1
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"request cut: {name}; proof {proof.word}, 100 tokens" in record.getMessage()
    assert "still not stopped 2 s after the cancel" in record.getMessage()
    assert "restart the engine" in record.getMessage()

    late = await generation.wait_stopped()

    assert now() == pytest.approx(free_at)
    assert (late.outcome, late.proof) == ("cancelled", Proof.OBSERVED)
    assert generation.phase == "cancelled"
    assert engine.statistics().quarantined == engine.statistics().running == 0
    again = await prove_stopped(generation, engine)
    assert (again.stopped, again.misbehaviour) == (True, name)
    assert engine.statistics().misbehaviours == {name: 1}
    await engine.aclose()


async def test_a_quarantined_slot_costs_the_others_that_slot_and_no_more(asked: Ask) -> None:
    engine = FakeEngine(lie="ignore_abort", slots=2)
    await cancel_one(engine, asked)
    began = now()

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(drain, engine.generate("w", max_tokens=10))

    assert now() - began == pytest.approx(20.5 * STEP)
    await engine.aclose()


async def test_the_first_of_each_k_aborts_is_lost(asked: Ask) -> None:
    engine = FakeEngine(lie="lose_abort:3")
    names: list[str | None] = []

    for _ in range(4):  # the second abort of a ladder counts, too
        _, report = await cancel_one(engine, asked)
        names.append(report.misbehaviour)

    assert names == ["lost", None, "lost", None]


async def test_what_an_engine_makes_behind_its_word_is_in_its_own_log(asked: Ask) -> None:
    """It keeps the tokens back, so that only its own books can tell."""
    engine = FakeEngine(lie="ack_and_run_on")
    generation, report = await cancel_one(engine, asked)
    await generation.wait_stopped()

    record = engine.log.request("cut")
    assert record is not None
    assert (record.tokens, record.tokens_after_cancel) == (500, 499)
    assert generation.usage.produced == 2
    assert report.tokens_made == 101


async def test_a_request_that_starts_after_a_late_answer_is_served(asked: Ask) -> None:
    """Only aborts and fences wait: an engine that is slow to stop is not slow to start."""
    engine = FakeEngine(lie="answer_late:5")
    await cancel_one(engine, asked)
    began = now()

    await drain(engine.generate("w", max_tokens=1))

    assert now() - began == pytest.approx(1.5 * STEP)
    await engine.aclose()


@pytest.mark.parametrize("lie", ["crash", "crash:5"])
async def test_a_crash_reaches_every_reader_at_once_and_nobody_hangs(
    lie: str, asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine(slots=2, lie=lie)
    errors: list[EngineFailed] = []

    async def read() -> None:
        with pytest.raises(EngineFailed, match="crashed in step 5") as caught:
            await drain(engine.generate("w"))
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(read)
        await anyio.sleep(3.5 * STEP)
        cut = engine.generate("w", request_id="cut")
        tasks.start_soon(drain, cut)
        await anyio.sleep(STEP / 4)
        cut.cancel(asked())

    assert now() == pytest.approx(5 * STEP)
    assert len(errors) == 3
    assert str(errors[0].__cause__).startswith("crashed in step 5")
    assert engine.failure is errors[0].__cause__
    assert (engine.statistics().running, engine.statistics().queued) == (0, 0)
    with pytest.raises(EngineFailed, match="dead"):
        await anext(engine.generate("w"))
    await engine.fence()
    assert "died after 4 steps" in caplog.text
    report = await prove_stopped(cut, engine)
    assert report.proof is Proof.OBSERVED
    if lie == "crash":
        assert (report.outcome, report.misbehaviour) == ("failed", "crashed")
        assert report.error is engine.failure
        assert engine.statistics().misbehaviours == {"crashed": 1}
    assert cut.phase == "cancelled"


async def test_what_was_made_before_a_crash_is_read_before_the_error() -> None:
    generation = FakeEngine(lie="crash:4").generate("w")
    await anext(generation)
    await anyio.sleep(1)

    rest = await anext(generation)

    assert rest.tokens == 2
    for _ in range(2):  # an answer that broke never looks like one that ended
        with pytest.raises(EngineFailed):
            await anext(generation)


@pytest.mark.realtime
@pytest.mark.parametrize("seconds", [0.6, 1.5])
async def test_a_blocked_event_loop_is_measured_and_named(
    seconds: float, asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be contained from inside the loop; it can be told from an engine that is slow."""
    engine = FakeEngine(lie=f"block:{seconds}")

    _, report = await cancel_one(engine, asked)

    assert report.misbehaviour is Misbehaviour.BLOCKED
    assert report.proof is Proof.OBSERVED
    assert report.stopped_after is not None
    assert report.stopped_after >= seconds
    assert "the event loop stood still for" in caplog.text
    assert engine.statistics().misbehaviours == {"blocked": 1}


@pytest.mark.blocks_the_loop
async def test_a_block_below_the_limit_is_nobodys_business(asked: Ask) -> None:
    limits = LadderLimits(block_limit=1000.0)
    engine = FakeEngine(lie="block:0.01", limits=limits)
    began = time.perf_counter()

    _, report = await cancel_one(engine, asked)

    assert time.perf_counter() - began >= 0.01
    assert report.misbehaviour is None


async def test_a_slow_engine_is_not_taken_for_a_liar(asked: Ask) -> None:
    """Its bound is three of its own steps, however long they are."""
    engine = FakeEngine(step_ms=5000)
    generation = engine.generate("w")
    await anext(generation)
    await anyio.sleep(0.1)
    generation.cancel(asked())

    report = await prove_stopped(generation, engine)

    assert report.stopped_after == pytest.approx(4.9)
    assert (report.misbehaviour, report.steps) == (None, ())


async def test_an_honest_engine_is_suspected_of_nothing(asked: Ask) -> None:
    engine = FakeEngine()
    for words in (1, 600, 3000):
        generation = engine.generate("w " * words)
        with anyio.move_on_after(2.5 * STEP):
            await drain(generation)
        report = await prove_stopped(generation, engine)
        assert (report.misbehaviour, report.steps) == (None, ())

    assert engine.statistics().misbehaviours == {}
    assert await wait_held(1) == []


@pytest.mark.parametrize(
    "lie",
    [
        "",
        "tell_jokes",
        "lose_abort",
        "lose_abort:1",
        "lose_abort:1.5",
        "lose_abort:x",
        "answer_late",
        "answer_late:0",
        "answer_late:nan",
        "answer_late:inf",
        "block:-1",
        "crash:",
        "crash:0",
        "ignore_abort:3",
        "never_answer:",
    ],
)
def test_a_lie_that_means_nothing_is_refused_with_a_list_of_those_that_do(lie: str) -> None:
    with pytest.raises(ValueError, match="option lie must be one of") as refused:
        FakeEngine(lie=lie)

    message = str(refused.value)
    assert repr(lie) in message
    for form in (
        "ignore_abort",
        "lose_abort:K",
        "ack_and_run_on",
        "answer_late:SECONDS",
        "never_answer",
        "crash, crash:STEP",
        "block:SECONDS",
    ):
        assert form in message


def test_the_page_about_lies_knows_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs/explanation/how-the-fake-engine-lies.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]

    assert ", ".join(row[1].strip(" `") for row in rows) == forms()
    named = {row[5].strip().split("`")[1] for row in rows}
    assert named == {name.value for name in Misbehaviour}


def test_the_page_about_proofs_knows_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs/explanation/proof-of-stop.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]

    assert [row[1].strip(" `") for row in rows] == [proof.word for proof in sorted(Proof)]
