"""The simulated engine does what a continuous-batching engine does, at exact instants."""

import asyncio
import gc
import time
from typing import Any

import anyio
import pytest

from streamkit._core import Cancellation, Reason, now
from streamkit.engines import Chunk, FakeEngine, Generation, GenerationRequest
from streamkit.errors import EngineFailed, RequestRefused, UsageBug
from streamkit.testing import VirtualTimeLoop

STEP = 0.02
in_order = pytest.mark.asyncio_only  # trio starts tasks in random order, on purpose


async def read(generation: Generation) -> list[tuple[float, Chunk]]:
    """All chunks, each with the instant at which it came."""
    return [(now(), chunk) async for chunk in generation]


async def times(generation: Generation) -> list[float]:
    return [at for at, _ in await read(generation)]


async def side_by_side(*generations: Generation) -> list[list[tuple[float, Chunk]]]:
    chunks: list[list[tuple[float, Chunk]]] = [[] for _ in generations]

    async def one(index: int) -> None:
        chunks[index] = await read(generations[index])

    async with anyio.create_task_group() as tasks:
        for index in range(len(generations)):
            tasks.start_soon(one, index)
    return chunks


def steps(*numbers: int) -> Any:
    return pytest.approx([number * STEP for number in numbers])


async def test_one_word_one_token_one_step() -> None:
    engine = FakeEngine()
    generation = engine.generate("three little words", max_tokens=4)

    chunks = await read(generation)

    assert [at for at, _ in chunks] == steps(1, 2, 3, 4)
    assert [chunk.tokens for _, chunk in chunks] == [1, 1, 1, 1]
    assert [chunk.finish_reason for _, chunk in chunks] == [None, None, None, "length"]
    assert generation.usage.prompt_tokens == 3
    assert generation.usage.handed_over == 4


async def test_it_answers_max_tokens_words_with_single_spaces() -> None:
    text = "".join([chunk.text async for chunk in FakeEngine(max_tokens=50).generate("hi")])

    assert len(text.split(" ")) == 50
    assert text == " ".join(text.split())


async def answer(engine: FakeEngine, prompt: str) -> str:
    return "".join([chunk.text async for chunk in engine.generate(prompt)])


async def test_the_same_seed_and_prompt_give_the_same_answer_whoever_else_is_served() -> None:
    alone = await answer(FakeEngine(seed=7), "a question")
    engine = FakeEngine(seed=7, slots=3)
    await side_by_side(*[engine.generate(prompt) for prompt in ("x", "y", "z", "x")])

    assert await answer(engine, "a question") == alone
    assert await answer(engine, "another question") != alone
    assert await answer(FakeEngine(seed=8), "a question") != alone


async def test_an_empty_prompt_needs_no_prefill() -> None:
    assert await times(FakeEngine().generate("", max_tokens=1)) == steps(1)


@pytest.mark.parametrize(
    ("words", "first"), [(1, 1), (512, 1), (513, 2), (1024, 2), (1025, 3), (5000, 10)]
)
async def test_a_long_prompt_is_taken_in_chunks(words: int, first: int) -> None:
    """The step that takes the last of the prompt makes the first token."""
    assert await times(FakeEngine().generate("w " * words, max_tokens=2)) == steps(first, first + 1)


@in_order
async def test_prefill_of_a_step_is_shared_in_the_order_of_admission() -> None:
    engine = FakeEngine(prefill_tokens_per_step=100)
    prompts = ["w " * 150, "w " * 100, "w"]

    first, second, third = await side_by_side(
        *[
            engine.generate(prompt, max_tokens=1, request_id=prompt[:1] + str(i))
            for i, prompt in enumerate(prompts)
        ]
    )

    # 100 | 50 + 50 | 50 + 1
    assert [at for at, _ in first] == steps(2)
    assert [at for at, _ in second] == steps(3)
    assert [at for at, _ in third] == steps(3)
    assert [dict(step.prefill) for step in engine.log.records] == [
        {"w0": 100},
        {"w0": 50, "w1": 50},
        {"w1": 50, "w2": 1},
    ]


@in_order
async def test_prefill_of_one_does_not_hold_up_the_decode_of_another() -> None:
    engine = FakeEngine()

    short, long = await side_by_side(
        engine.generate("short", max_tokens=6), engine.generate("w " * 2048, max_tokens=1)
    )

    assert [at for at, _ in short] == steps(1, 2, 3, 4, 5, 6)
    assert [at for at, _ in long] == steps(5)  # one token of the first step was the other's


@in_order
async def test_what_finds_no_slot_waits_for_one_in_order() -> None:
    engine = FakeEngine(slots=2)

    chunks = await side_by_side(*[engine.generate("w", max_tokens=3) for _ in range(5)])

    assert [[at for at, _ in read] for read in chunks] == [
        steps(1, 2, 3),
        steps(1, 2, 3),
        steps(4, 5, 6),
        steps(4, 5, 6),
        steps(7, 8, 9),
    ]


async def test_never_more_run_than_there_are_slots() -> None:
    engine = FakeEngine(slots=3)
    seen: list[int] = []

    async with anyio.create_task_group() as tasks:
        for tokens in range(1, 12):
            tasks.start_soon(read, engine.generate("w", max_tokens=tokens))
        await anyio.sleep(STEP / 2)
        while (books := engine.statistics()).running:
            seen.append(books.running)
            await anyio.sleep(STEP)

    assert max(seen) == 3
    assert max(len(step.decode) for step in engine.log.records) == 3
    assert engine.log.tokens == sum(range(1, 12))


async def test_a_request_that_arrives_in_a_step_is_looked_at_after_it() -> None:
    engine = FakeEngine()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, engine.generate("w", max_tokens=5))
        await anyio.sleep(1.5 * STEP)

        assert await times(engine.generate("w", max_tokens=1)) == steps(3)


@in_order
async def test_admission_waits_for_kv_cache() -> None:
    """Each needs 1 + 9 tokens of 20: two at a time, though there are slots."""
    engine = FakeEngine(kv_tokens=20)

    chunks = await side_by_side(*[engine.generate("w", max_tokens=9) for _ in range(3)])

    assert [read[0][0] for read in chunks] == steps(1, 1, 10)


@in_order
async def test_the_head_of_the_queue_is_not_overtaken() -> None:
    engine = FakeEngine(kv_tokens=20)

    _, large, small = await side_by_side(
        engine.generate("w", max_tokens=9),
        engine.generate("w", max_tokens=19),
        engine.generate("w", max_tokens=1),
    )

    assert large[0][0] == pytest.approx(10 * STEP)
    assert small[0][0] == pytest.approx(29 * STEP)


async def test_what_could_never_fit_is_refused_before_it_is_submitted() -> None:
    engine = FakeEngine(kv_tokens=20)

    with pytest.raises(ValueError, match=r"need 21 tokens, the engine holds 20"):
        engine.generate("w", max_tokens=20)
    with pytest.raises(ValueError, match="at most 128"):
        engine.generate("w", max_tokens=1, n=129)
    with pytest.raises(ValueError, match="1048576"):
        FakeEngine().generate("w", max_tokens=1 << 20)


@pytest.mark.parametrize("bad", [{"max_tokens": 0}, {"max_tokens": -1}, {"n": 0}])
def test_a_request_for_less_than_one_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"must be at least 1, got {next(iter(bad.values()))}"):
        GenerationRequest(prompt="w", **bad)


async def test_n_choices_are_n_sequences_with_answers_of_their_own() -> None:
    engine = FakeEngine()

    chunks = await read(engine.generate("w", max_tokens=3, n=3))

    assert [chunk.index for _, chunk in chunks] == [0, 1, 2] * 3
    assert [at for at, _ in chunks] == steps(1, 1, 1, 2, 2, 2, 3, 3, 3)
    assert [chunk.finish_reason for _, chunk in chunks] == [None] * 6 + ["length"] * 3
    answers = {
        "".join(chunk.text for _, chunk in chunks if chunk.index == index) for index in range(3)
    }
    assert len(answers) == 3
    assert engine.log.records[0].prefill == engine.log.records[0].decode


async def test_choices_that_find_no_slot_wait_for_one() -> None:
    chunks = await read(FakeEngine(slots=2).generate("w", max_tokens=2, n=3))

    assert [(round(at / STEP), chunk.index) for at, chunk in chunks] == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
        (3, 2),
        (4, 2),
    ]


async def test_a_speculative_step_makes_several_tokens() -> None:
    chunks = await read(FakeEngine(speculative=4).generate("w", max_tokens=50))

    counts = [chunk.tokens for _, chunk in chunks]
    assert sum(counts) == 50
    assert set(counts[:-1]) == {1, 2, 3, 4}
    assert all(len(chunk.text.split()) == chunk.tokens for _, chunk in chunks)
    assert chunks[-1][0] == pytest.approx(len(chunks) * STEP)


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    engine = FakeEngine(slots=1, max_queued=2)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):  # one for the slot, two for the queue
            tasks.start_soon(read, engine.generate("w", max_tokens=100))
        await anyio.sleep(STEP / 2)

        with pytest.raises(RequestRefused, match="2 sequences wait for 1 slots") as refused:
            await anext(engine.generate("w", max_tokens=100))

    assert refused.value.retry_after == pytest.approx(4.0)
    assert refused.value.status == 429


async def test_books_of_a_refused_request_stay_empty() -> None:
    engine = FakeEngine(slots=1, max_queued=0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, engine.generate("w", max_tokens=3))
        await anyio.sleep(STEP / 2)
        refused = engine.generate("w", request_id="refused")
        for _ in range(2):  # an answer that broke never looks like one that ended
            with pytest.raises(RequestRefused):
                await anext(refused)

    assert engine.log.request("refused") is None
    assert (await refused.wait_stopped()).outcome == "failed"


async def test_a_slow_reader_gets_all_of_it_in_one_piece() -> None:
    """A push engine does not wait; what is not read is merged per choice."""
    generation = FakeEngine().generate("w", max_tokens=20, n=2)
    first = [await anext(generation), await anext(generation)]
    await anyio.sleep(1.0)

    rest = [chunk async for chunk in generation]

    assert [(chunk.index, chunk.tokens) for chunk in first + rest] == [
        (0, 1),
        (1, 1),
        (0, 19),
        (1, 19),
    ]
    assert [chunk.finish_reason for chunk in rest] == ["length", "length"]


async def test_an_idle_engine_has_no_task_and_its_clock_stands_still() -> None:
    engine = FakeEngine()
    await read(engine.generate("w", max_tokens=3))
    await anyio.sleep(1000)

    assert engine.log.steps == 3

    began = now()
    assert await times(engine.generate("w", max_tokens=1)) == [pytest.approx(began + STEP)]


async def test_steps_do_not_drift() -> None:
    engine = FakeEngine(step_ms=1.0)
    await read(engine.generate("w", max_tokens=2_000))

    assert now() == pytest.approx(2.0, abs=1e-6)


async def test_statistics_are_the_engines_own_books() -> None:
    engine = FakeEngine(slots=2)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(read, engine.generate("w", max_tokens=4))
        await anyio.sleep(2.5 * STEP)
        books = engine.statistics()

    assert (books.slots, books.running, books.queued) == (2, 2, 1)
    assert (books.steps, books.tokens, books.quarantined) == (2, 4, 0)


async def test_an_id_that_is_in_flight_is_refused_and_one_that_ended_is_not() -> None:
    engine = FakeEngine()
    opened_before = engine.generate("w", max_tokens=1, request_id="same")
    first = engine.generate("w", max_tokens=2, request_id="same")
    await anext(first)

    with pytest.raises(UsageBug, match="'same' is in flight"):
        engine.generate("w", request_id="same")
    with pytest.raises(UsageBug, match="'same' is in flight"):
        await anext(opened_before)

    await read(first)
    assert len(await read(engine.generate("w", max_tokens=3, request_id="same"))) == 3
    record = engine.log.request("same")
    assert record is not None
    assert record.tokens == 3


async def test_closing_the_engine_ends_what_it_runs_and_queues() -> None:
    engine = FakeEngine(slots=1)
    running, queued = engine.generate("w"), engine.generate("w")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, running)
        tasks.start_soon(read, queued)
        await anyio.sleep(1.5 * STEP)
        await engine.aclose()
        await engine.aclose()

    for generation in (running, queued):
        assert (await generation.wait_stopped()).outcome == "cancelled"
        assert generation.cancellation is not None
        assert generation.cancellation.reason == "drain"
    assert engine.statistics().running == engine.statistics().queued == 0
    assert now() == pytest.approx(1.5 * STEP)
    with pytest.raises(EngineFailed, match="closed"):
        await anext(engine.generate("w"))
    await engine.fence()  # nothing is on its way any more


async def test_a_fence_comes_back_when_all_before_it_was_looked_at() -> None:
    engine = FakeEngine()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, engine.generate("w", max_tokens=3))
        await anyio.sleep(1.5 * STEP)
        await engine.fence()

        assert now() == pytest.approx(2 * STEP)
    idle = now()
    await engine.fence()

    assert now() == idle


async def test_capabilities_can_be_shown() -> None:
    shown = FakeEngine(kill=True).capabilities.as_json()

    assert shown["proof"] == "observed"
    assert shown["kill"] is True
    assert FakeEngine().capabilities.kill is False


@pytest.mark.realtime
async def test_an_engine_whose_loop_stood_still_does_not_make_up_for_it() -> None:
    """Half a second is 50 steps of 10 ms; it makes the one that was due, and goes on from there."""
    engine = FakeEngine(step_ms=10.0)
    generation = engine.generate("w", max_tokens=1000)
    await anext(generation)
    before = engine.log.steps

    time.sleep(0.5)  # noqa: ASYNC251, TID251 - the loop stands still on purpose
    began = now()
    await anyio.sleep(0.05)
    after = engine.log.steps

    assert after - before <= (now() - began) / 0.01 + 2
    await engine.aclose()


@pytest.mark.asyncio_only
def test_an_engine_outlives_its_event_loop() -> None:
    """What was running when the loop was shut down is over; the next loop finds it idle."""
    engine = FakeEngine()
    left: list[Generation] = []

    async def leave_it_running() -> None:
        left.append(engine.generate("w"))
        await anext(left[0])

    async def use_it() -> float:
        await anext(engine.generate("w", max_tokens=1))
        return now()

    for _ in range(2):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(leave_it_running())
        assert engine.statistics().running == 0
        assert left.pop().phase == "failed"
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(use_it()) == pytest.approx(STEP)
    assert engine.failure is None


@pytest.mark.asyncio_only
def test_a_generation_may_be_cancelled_and_dropped_after_its_loop_was_closed() -> None:
    """A loop that is closed without cancelling its tasks first."""
    engine = FakeEngine()
    loop = VirtualTimeLoop()
    generations = [engine.generate("w"), engine.generate("w")]

    async def begin() -> None:
        for generation in generations:
            await anext(generation)

    loop.run_until_complete(begin())
    tasks = asyncio.all_tasks(loop)
    loop.close()

    assert generations[0].cancel(Cancellation(reason=Reason.REQUESTED, at=0.0))
    generations.clear()
    gc.collect()
    for task in tasks:  # asyncio would complain of it, rightly
        task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_what_it_is_made_of_shows_its_state(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(slots=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, engine.generate("a prompt", max_tokens=3))
        tasks.start_soon(read, engine.generate("a prompt", max_tokens=3))
        await anyio.sleep(1.5 * STEP)

        assert repr(engine._simulator) == (
            "<Simulator open: <Scheduler 1 running, 1 queued, 5 KV tokens>, 0 in the inbox>"
        )
        assert repr(engine.log) == "<StepLog 1 steps, 1 tokens (0 after a cancel), 2 requests held>"
    assert not caplog.records
