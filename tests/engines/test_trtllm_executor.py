"""The adapter for TensorRT-LLM's executor bindings against a stub that runs on its own thread."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable

import anyio
import pytest

from streamkit._core import Cancellation, wait_held
from streamkit.engines import (
    Chunk,
    Generation,
    GenerationRequest,
    LadderLimits,
    Proof,
    Sampling,
    TensorRTExecutorEngine,
    prove_stopped,
)
from streamkit.errors import EngineFailed, UnsupportedOption
from streamkit.testing import CheckPlan, check_engine

from . import trtllm_executor_stub as stub
from .trtllm_executor_stub import Executor, Tokenizer

Ask = Callable[..., Cancellation]
pytestmark = [pytest.mark.asyncio_only, pytest.mark.realtime]  # its executor has a thread
LIMITS = LadderLimits(stop_bound=2.0)  # a busy machine may stand still for a while


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in stub.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
async def executor() -> AsyncIterator[Executor]:
    executor = Executor()
    yield executor
    await anyio.to_thread.run_sync(executor.shutdown)


@pytest.fixture
async def engine(executor: Executor) -> AsyncIterator[TensorRTExecutorEngine]:
    engine = TensorRTExecutorEngine(executor, Tokenizer(), limits=LIMITS)
    yield engine
    await engine.aclose()
    await wait_held(20)


async def until(reached: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not reached():  # noqa: ASYNC110 - a stub on a thread has no event of this loop
            await anyio.sleep(0.001)


async def read(generation: Generation) -> list[Chunk]:
    return [chunk async for chunk in generation]


def joined(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


async def test_an_answer_is_whole_and_no_character_is_halved(
    engine: TensorRTExecutorEngine,
) -> None:
    generation = engine.generate("two words", max_tokens=8)

    chunks = await read(generation)

    assert joined(chunks) == "aé aé "
    assert all("\ufffd" not in chunk.text for chunk in chunks)
    assert (sum(chunk.tokens for chunk in chunks), chunks[-1].finish_reason) == (8, "length")
    assert (generation.usage.prompt_tokens, generation.usage.handed_over) == (2, 8)


async def test_one_that_ends_within_a_character_says_so(engine: TensorRTExecutorEngine) -> None:
    assert joined(await read(engine.generate("w", max_tokens=2))) == "a\ufffd"


async def test_choices_are_told_apart(engine: TensorRTExecutorEngine, executor: Executor) -> None:
    executor.end_at = lambda _: 4

    chunks = await read(engine.generate("w", max_tokens=9, n=2))

    assert (joined(chunks, 0), joined(chunks, 1)) == ("aé ", "aé ")
    assert {chunk.index for chunk in chunks if chunk.finish_reason == "stop"} == {0, 1}


async def test_what_was_asked_for_is_what_it_gets(
    engine: TensorRTExecutorEngine, executor: Executor
) -> None:
    sampling = Sampling(
        temperature=0.5, top_p=0.9, seed=3, frequency_penalty=0.1, presence_penalty=0.2
    )
    await read(engine.open(GenerationRequest(prompt_ids=(4, 5), max_tokens=1, sampling=sampling)))
    executor.end_at = lambda _: 1
    await read(engine.generate("one two three"))

    first, second = executor.requests
    assert first == stub.Request(
        [4, 5],
        1,
        True,
        stub.SamplingConfig(
            temperature=0.5, top_p=0.9, seed=3, frequency_penalty=0.1, presence_penalty=0.2
        ),
        stub.OutputConfig(exclude_input_from_output=True),
        99,
    )
    assert (second.input_token_ids, second.max_tokens) == ([1, 1, 1], 256)


async def test_one_that_runs_says_a_last_word(
    engine: TensorRTExecutorEngine, executor: Executor, asked: Ask
) -> None:
    generation = engine.generate("w", max_tokens=100_000)
    await anext(generation)
    generation.cancel(asked())

    report = await prove_stopped(generation, engine)

    assert (report.proof, report.answered) == (Proof.ANSWERED, True)
    assert executor.idle


async def test_one_that_waits_is_not_waited_for_and_never_runs(
    engine: TensorRTExecutorEngine, executor: Executor, asked: Ask
) -> None:
    first, second = (engine.generate("w", max_tokens=100_000) for _ in range(2))
    await anext(first)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, second)
        await until(lambda: len(executor.requests) == 2)
        second.cancel(asked())
        report = await prove_stopped(second, engine)
    first.cancel(asked())
    await prove_stopped(first, engine)
    await until(lambda: executor.idle)

    assert (report.proof, report.misbehaviour) == (Proof.CLOSED, None)
    assert executor.idle


async def test_one_that_runs_and_ignores_its_cancel_is_never_taken_for_stopped(
    executor: Executor, asked: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.engines._trtllm._executor.ANSWER_LIMIT", 0.1)
    executor.deaf = True
    limits = LadderLimits(stop_bound=0.1, again_bound=0.1, kill_bound=0.1)
    engine = TensorRTExecutorEngine(executor, Tokenizer(), limits=limits)
    generation = engine.generate("w", max_tokens=100_000)
    await anext(generation)
    generation.cancel(asked())

    report = await prove_stopped(generation, engine)
    await wait_held(20)

    assert report.steps == ("again", "quarantine", "report")
    assert not (await generation.wait_stopped(0)).stopped  # also when nobody reads any more
    await engine.aclose()


async def test_a_request_has_only_its_own_responses(engine: TensorRTExecutorEngine) -> None:
    texts: dict[int, str] = {}

    async def ask(tokens: int) -> None:
        texts[tokens] = joined(await read(engine.generate("w", max_tokens=tokens)))

    async with anyio.create_task_group() as tasks:
        for tokens in (4, 8, 12):
            tasks.start_soon(ask, tokens)

    assert texts == {4: "aé ", 8: "aé aé ", 12: "aé aé aé "}


async def test_an_error_of_one_request_is_not_the_end_of_the_engine(
    engine: TensorRTExecutorEngine, executor: Executor
) -> None:
    generation = engine.generate("w", max_tokens=100_000)
    await anext(generation)
    executor.fail(1, "no such adapter")

    with pytest.raises(EngineFailed, match="no such adapter"):
        await read(generation)
    executor.cancel_request(1)
    assert joined(await read(engine.generate("w", max_tokens=1))) == "a"


async def test_without_responses_it_is_dead(
    engine: TensorRTExecutorEngine, executor: Executor
) -> None:
    generation = engine.generate("w", max_tokens=100_000)
    await anext(generation)
    executor.broken = RuntimeError("CUDA error")

    with pytest.raises(EngineFailed, match="CUDA error"):
        await read(generation)
    with pytest.raises(EngineFailed, match="engine trtllm-executor is dead"):
        await read(engine.generate("w"))


async def test_what_it_cannot_be_asked_for_is_refused(engine: TensorRTExecutorEngine) -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        engine.open(GenerationRequest())
    with pytest.raises(UnsupportedOption, match="stop is not supported"):
        engine.open(GenerationRequest(prompt="w", stop=("x",)))


@pytest.mark.timeout(120)
async def test_every_promise_about_cancels_is_kept(executor: Executor) -> None:
    plan = CheckPlan(
        long_prompt="word " * 16_000,
        answer_tokens=5_000,
        bound=5.0,
        wake_bound=2.0,
        canary_slack=2.0,
        block_limit=2.0,
        cancels=40,
        ways=("cancel", "task", "drop", "thread"),
    )

    report = await check_engine(
        lambda: TensorRTExecutorEngine(executor, Tokenizer(), limits=LIMITS), plan
    )

    report.raise_if_failed()
    await until(lambda: executor.idle)
    assert report.verified["answers_cancel"].startswith("claims 'running'")
