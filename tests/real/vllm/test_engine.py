"""The adapter on the real vLLM: answers, errors, and 200 cancels at random moments."""

from __future__ import annotations

import random
import time
from statistics import median
from typing import Any

import anyio
import pytest

from examples.vllm.tiny import CONTEXT
from streamkit._core import Cancellation, Reason, now
from streamkit.engines import (
    Generation,
    GenerationRequest,
    Message,
    Outcome,
    Proof,
    Sampling,
    VLLMEngine,
    prove_stopped,
)
from streamkit.errors import BadPayload, EngineFailed

from .books import check_empty

CANCELS = 200
TOKENS = 20
IDLE_SAMPLES = 20
SLOWER = 3.0  # a canary behind a cancel against one on an idle engine …
SLACK = 0.1  # … and so many seconds more, for a machine that does other things


async def read(generation: Generation) -> str:
    return "".join([chunk.text async for chunk in generation])


async def canary(engine: VLLMEngine) -> float:
    began = time.perf_counter()
    await read(engine.generate("canary", max_tokens=1))
    return time.perf_counter() - began


async def leave(generation: Generation, turns: int, tokens: int) -> None:
    """Cancel it so many turns of the loop after its start, and after so many tokens."""

    async def reader() -> None:
        seen = 0
        async for chunk in generation:
            seen += chunk.tokens
            if seen >= tokens > 0:
                break
        reached.set()

    reached = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        if tokens:
            await reached.wait()
        generation.cancel(Cancellation(reason=Reason.REQUESTED, at=now(), detail="at random"))


async def test_200_cancels_at_random_moments_leave_an_idle_engine(
    engine: VLLMEngine, llm: Any, capsys: Any
) -> None:
    chance = random.Random(1)
    idle = [await canary(engine) for _ in range(IDLE_SAMPLES)]
    after: list[float] = []
    stopped: list[float] = []
    for number in range(CANCELS):
        n = 1 + number % 2
        early = chance.random() < 0.5
        turns, tokens = (chance.randrange(40), 0) if early else (0, chance.randint(1, n * TOKENS))
        generation = engine.generate("leave me", max_tokens=TOKENS, n=n)
        await leave(generation, turns, tokens)
        after.append(await canary(engine))
        if generation.cancellation is None:
            continue  # that was the last token
        report = await prove_stopped(generation, engine)
        assert report.outcome is Outcome.CANCELLED
        assert report.proof is Proof.JOINED if report.told_after is None else Proof.FENCED
        assert report.error is None
        stopped.append(report.stopped_after or 0.0)

    with capsys.disabled():
        print(
            f"\n{CANCELS} cancels: canary {1e3 * median(after):.1f} ms behind them, "
            f"{1e3 * median(idle):.1f} ms on an idle engine; stopped after "
            f"{1e3 * median(stopped):.1f} ms, {1e3 * max(stopped):.1f} ms at most"
        )
    await check_empty(llm)
    assert median(after) <= SLOWER * median(idle) + SLACK


async def test_an_answer_is_what_vllm_itself_says(engine: VLLMEngine, llm: Any) -> None:
    from vllm.sampling_params import SamplingParams  # noqa: PLC0415

    params = SamplingParams(max_tokens=TOKENS, temperature=0, seed=1)
    theirs = ""
    async for output in llm.generate("say it", params, "by-hand"):
        theirs = output.outputs[0].text

    sampling = Sampling(temperature=0, seed=1)
    generation = engine.open(
        GenerationRequest(prompt="say it", max_tokens=TOKENS, sampling=sampling)
    )

    assert await read(generation) == theirs
    assert (generation.usage.prompt_tokens, generation.usage.produced) == (6, TOKENS)


async def test_a_text_to_stop_at_ends_it_and_is_no_part_of_it(engine: VLLMEngine) -> None:
    sampling = Sampling(temperature=0.7, seed=2)
    whole = await read(
        engine.open(GenerationRequest(prompt="say it", max_tokens=TOKENS, sampling=sampling))
    )
    stop = whole[10]
    request = GenerationRequest(prompt="say it", max_tokens=TOKENS, sampling=sampling, stop=(stop,))

    chunks = [chunk async for chunk in engine.open(request)]

    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"


async def test_messages_go_through_the_template(engine: VLLMEngine) -> None:
    request = GenerationRequest(messages=(Message("user", "hi"),), max_tokens=1)
    generation = engine.open(request)
    await read(generation)

    assert generation.usage.prompt_tokens == len("[user] hi\n[assistant] ")


async def test_log_probabilities_come_with_each_token(engine: VLLMEngine) -> None:
    request = GenerationRequest(prompt="w", max_tokens=3, sampling=Sampling(logprobs=2))

    chunks = [chunk async for chunk in engine.open(request)]

    tokens = [token for chunk in chunks for token in chunk.logprobs]
    assert len(tokens) == 3
    assert all(len(token.top) == 2 and token.logprob < 0 for token in tokens)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (GenerationRequest(prompt="x" * (CONTEXT + 1)), "maximum context length"),
        (GenerationRequest(prompt="x", sampling=Sampling(logprobs=99)), "logprobs"),
    ],
)
async def test_what_vllm_refuses_is_the_clients_mistake(
    engine: VLLMEngine, request_: GenerationRequest, said: str
) -> None:
    with pytest.raises(BadPayload, match=said):
        await read(engine.open(request_))


async def test_a_pause_cuts_short_what_runs_and_is_no_whole_answer(
    engine: VLLMEngine, llm: Any
) -> None:
    generation = engine.generate("w", max_tokens=4000)
    await anext(generation)
    await llm.pause_generation(mode="abort")
    try:
        with pytest.raises(EngineFailed, match="it was paused"):
            await read(generation)
        waiting = engine.generate("w", max_tokens=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, waiting)
            await anyio.sleep(0.1)
            waiting.cancel(Cancellation(reason=Reason.REQUESTED, at=now(), detail="while paused"))
        report = await prove_stopped(waiting, engine)
    finally:
        await llm.resume_generation()

    assert report.proof is Proof.FENCED
    assert await read(engine.generate("w", max_tokens=3))
    await check_empty(llm)
