"""Triton's own client against a gRPC server: what cancelling a call does to the other side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from streamkit._core import Cancellation, Reason, now
from streamkit.engines import Generation, GenerationRequest, Proof, Sampling, TritonEngine
from streamkit.errors import EngineFailed, RequestRefused
from streamkit.testing import CheckPlan, check_engine
from tests.engine_reports import keep

from .server import STEP, Model, start


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model()
    server, model.address = await start(model)  # type: ignore[attr-defined]
    yield model
    await server.stop(None)


@pytest.fixture
async def engine(model: Any) -> AsyncIterator[TritonEngine]:
    engine = TritonEngine(model.address)
    await engine.load()
    yield engine
    await engine.aclose()


async def until(reached: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not reached():  # noqa: ASYNC110 - the server has no event
            await anyio.sleep(0.001)


async def text_of(generation: Generation) -> str:
    return "".join([chunk.text async for chunk in generation])


def asked() -> Cancellation:
    return Cancellation(reason=Reason.REQUESTED, at=now(), detail="asked by the test")


async def test_an_answer_is_whole_and_its_options_arrive(engine: TritonEngine, model: Any) -> None:
    sampling = Sampling(temperature=0.5, top_p=0.75, seed=3)
    request = GenerationRequest(prompt="wé", max_tokens=3, stop=("a", "b"), sampling=sampling)

    assert await text_of(engine.open(request)) == "w0 w1 w2 "

    (values,) = model.requests
    assert values["text_input"] == "wé"
    assert values["stop_words"] == ["a", "b"]
    assert (values["max_tokens"], values["stream"], values["temperature"]) == (3, True, 0.5)
    assert (values["top_p"], values["seed"], values["model"]) == (0.75, 3, "ensemble")


async def test_a_cancel_ends_the_stream_on_the_server(engine: TritonEngine, model: Any) -> None:
    generation = engine.generate("w", max_tokens=10_000)
    await anext(generation)

    generation.cancel(asked())
    assert await text_of(generation) == ""
    await until(lambda: model.running == 0)
    made = model.steps
    report = await generation.wait_stopped()
    await anyio.sleep(5 * STEP)

    assert (report.proof, report.answered) == (Proof.CLOSED, False)
    assert model.steps == made


async def test_one_that_waits_for_the_slot_is_cancelled_there(
    engine: TritonEngine, model: Any
) -> None:
    first, second = (engine.generate("w", max_tokens=10_000) for _ in range(2))
    await anext(first)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(text_of, second)
        await until(lambda: model.running == 2)
        second.cancel(asked())
        await until(lambda: model.running == 1)
    assert (await anext(first)).text

    await first.aclose()
    await until(lambda: model.running == 0)


async def test_each_request_has_a_stream_of_its_own(engine: TritonEngine, model: Any) -> None:
    left, stays = engine.generate("w", max_tokens=10_000), engine.generate("w", max_tokens=20)
    await anext(left)
    async with anyio.create_task_group() as tasks:
        texts: list[str] = []

        async def stay() -> None:
            texts.append(await text_of(stays))

        tasks.start_soon(stay)
        await until(lambda: model.running == 2)
        await left.aclose()

    assert len(texts[0].split()) == 20


async def test_an_error_in_the_stream_is_the_requests_own(engine: TritonEngine) -> None:
    with pytest.raises(EngineFailed, match="too many tokens"):
        await text_of(engine.generate("w", max_tokens=200_000))

    assert await text_of(engine.generate("w", max_tokens=1)) == "w0 "


async def test_a_server_that_is_not_there_is_one_line() -> None:
    engine = TritonEngine("127.0.0.1:1")

    with pytest.raises(EngineFailed, match=r"Triton at 127\.0\.0\.1:1 does not answer"):
        await engine.load()
    with pytest.raises(RequestRefused, match="Triton: "):
        await text_of(engine.generate("w"))
    await engine.aclose()


async def test_every_promise_about_cancels_is_kept(model: Any, capsys: Any) -> None:
    async def make() -> TritonEngine:
        engine = TritonEngine(model.address)
        await engine.load()
        return engine

    plan = CheckPlan(
        untried=("stop",),
        long_prompt="word " * 16_000,
        answer_tokens=5_000,
        bound=5.0,
        wake_bound=2.0,
        canary_slack=2.0,
        block_limit=2.0,
        cancels=100,
    )

    report = await check_engine(make, plan)

    await keep(report, "triton", "tritonclient", stub=True)
    with capsys.disabled():
        print(f"\n{report}")
    report.raise_if_failed()
    await until(lambda: model.running == 0)
