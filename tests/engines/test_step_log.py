"""The engine's own log is exact, is bounded, and agrees with streamkit's books to the token."""

import random
from collections import Counter
from collections.abc import Callable

import anyio
import pytest

from streamkit._core import Cancellation, CancelSource, Reason, wait_held
from streamkit.engines import FakeEngine, Generation, GenerationRequest, StepLog, prove_stopped

STEP = 0.02
Ask = Callable[..., Cancellation]


async def drain(generation: Generation) -> int:
    return sum([chunk.tokens async for chunk in generation])


async def test_it_says_what_was_computed_in_each_step_and_for_whom() -> None:
    engine = FakeEngine(prefill_tokens_per_step=2)
    await drain(engine.generate("three little words", max_tokens=2, request_id="r"))

    log = engine.log
    assert [(step.number, step.prefill, step.decode) for step in log.records] == [
        (1, {"r": 2}, {}),
        (2, {"r": 1}, {"r": 1}),
        (3, {}, {"r": 1}),
    ]
    assert [step.at for step in log.records] == pytest.approx([STEP, 2 * STEP, 3 * STEP])
    assert (log.steps, log.tokens, log.prefilled) == (3, 2, 3)
    record = log.request("r")
    assert record is not None
    assert (record.steps, record.tokens, record.prefilled) == (3, 2, 3)
    assert (record.prompt_tokens, record.limit, record.end) == (3, 2, "completed")
    assert (record.submitted_at, record.ended_at) == (0.0, pytest.approx(3 * STEP))
    assert "3 steps, 2 tokens (0 after a cancel)" in repr(log)


async def test_a_step_for_nobody_is_told_from_one_that_others_needed(asked: Ask) -> None:
    engine = FakeEngine()
    cut = engine.generate("w", request_id="cut")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, engine.generate("w", max_tokens=3))
        await anyio.sleep(STEP / 4)
        await anext(cut)  # joins in the second step
        cut.cancel(asked())
        await prove_stopped(cut, engine)  # the third
        alone = engine.generate("w", request_id="alone")
        await anext(alone)
        alone.cancel(asked())
        await prove_stopped(alone, engine)

    log = engine.log
    assert [step.for_nobody for step in log.records] == [False, False, False, False, True]
    assert (log.steps_for_nobody, log.tokens_after_cancel) == (1, 2)
    for request_id in ("cut", "alone"):
        record = log.request(request_id)
        assert record is not None
        assert (record.tokens, record.tokens_after_cancel, record.steps_after_cancel) == (2, 1, 1)


async def test_it_counts_prefill_for_nobody_too(asked: Ask) -> None:
    engine = FakeEngine()
    generation = engine.generate("w " * 2000, request_id="r")
    with anyio.move_on_after(1.5 * STEP):
        await anext(generation)
    await prove_stopped(generation, engine)

    assert [step.for_nobody for step in engine.log.records] == [False, True]
    assert engine.log.tokens_after_cancel == 0


def test_it_keeps_the_last_steps_and_requests_and_all_totals() -> None:
    log = StepLog(keep_steps=3, keep_requests=2)
    for number in range(10):
        name = f"r{number}"
        log.submitted(name, prompt_tokens=1, limit=1, at=0.0)
        log.step(0.0, {name: 1}, {name: 1})
        log.ended(name, "completed", 0.0)

    assert [step.number for step in log.records] == [8, 9, 10]
    assert [record.request_id for record in log.requests()] == ["r8", "r9"]
    assert log.request("r1") is None
    assert log.tokens_of("r1") is None
    assert (log.steps, log.tokens, log.prefilled) == (10, 10, 10)


class Crowd:
    """Many requests of all kinds, of which a random half leaves at a random moment."""

    def __init__(self, seed: int, engine: FakeEngine) -> None:
        self.random = random.Random(seed)
        self.engine = engine
        self.generations: list[Generation] = []

    async def run(self, requests: int) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(requests):
                tasks.start_soon(self.one, f"r{number}")

    async def one(self, request_id: str) -> None:
        chance = self.random
        await anyio.sleep(chance.uniform(0, 2))
        source = CancelSource()
        request = GenerationRequest(
            prompt="w " * chance.choice([0, 1, 5, 300, 900]),
            max_tokens=chance.randint(1, 30),
            n=chance.choice([1, 1, 1, 2, 3]),
        )
        generation = self.engine.open(request, request_id=request_id, token=source.token)
        self.generations.append(generation)
        async with anyio.create_task_group() as tasks:
            match chance.choice(["stay", "stay", "token", "close", "task", "slow"]):
                case "token":
                    tasks.start_soon(self.later, source.cancel, Reason.CLIENT_DISCONNECT)
                case "close":
                    tasks.start_soon(self.later_async, generation.aclose)
                case "task":
                    tasks.start_soon(self.later, tasks.cancel_scope.cancel)
                case "slow":
                    await anyio.sleep(chance.uniform(0, 1))
                case _:
                    pass
            await drain(generation)
            tasks.cancel_scope.cancel()

    async def later(self, act: Callable[..., object], *args: object) -> None:
        await anyio.sleep(self.random.uniform(0, 1))
        act(*args)

    async def later_async(self, act: Callable[[], object]) -> None:
        await anyio.sleep(self.random.uniform(0, 1))
        await act()  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("speculative", [1, 5])
async def test_books_and_log_agree_to_the_token_whoever_leaves_when(
    seed: int, speculative: int
) -> None:
    engine = FakeEngine(slots=20, kv_tokens=12_000, seed=seed, speculative=speculative)
    crowd = Crowd(seed, engine)

    await crowd.run(500)
    assert await wait_held(5) == []

    log = engine.log
    ends: Counter[str | None] = Counter()
    for generation in crowd.generations:
        record = log.request(generation.request_id)
        report = await generation.wait_stopped(0)
        assert report.stopped
        usage = generation.usage
        if record is None:  # left before it was submitted
            assert (usage.produced, report.tokens_made) == (0, None)
            continue
        ends[record.end] += 1
        assert usage.produced == record.tokens == report.tokens_made
        assert record.aborts == (generation.cancellation is not None)
        assert record.steps_after_cancel <= 1
        if report.outcome == "finished":
            assert (usage.handed_over, usage.discarded) == (record.limit, 0)
    assert log.tokens == sum(generation.usage.produced for generation in crowd.generations)
    assert ends["completed"] > 100
    assert ends["aborted"] > 100
    books = engine.statistics()
    assert (books.running, books.queued, books.quarantined) == (0, 0, 0)
    assert not books.misbehaviours
    assert "0 KV tokens" in repr(engine._simulator)
