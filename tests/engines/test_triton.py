"""The adapter for Triton against a stub; tests/real/triton has the real client and a server."""

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
    Proof,
    Sampling,
    TritonEngine,
    build,
    prove_stopped,
)
from streamkit.errors import (
    BadPayload,
    EngineFailed,
    MissingPackage,
    RequestRefused,
    UnsupportedOption,
)
from streamkit.testing import CheckPlan, check_engine, every_moment

from . import triton_stub
from .triton_stub import STEP, InferenceServerClient, InferenceServerException, Server

Ask = Callable[..., Cancellation]
pytestmark = pytest.mark.asyncio_only  # its client is asyncio's


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in triton_stub.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    triton_stub.SERVERS.clear()


@pytest.fixture
async def engine() -> AsyncIterator[TritonEngine]:
    engine = TritonEngine("here")
    await engine.load()
    yield engine
    await engine.aclose()


@pytest.fixture
def server(engine: TritonEngine) -> Server:
    return triton_stub.SERVERS["here"]


async def read(generation: Generation) -> list[Chunk]:
    return [chunk async for chunk in generation]


def joined(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


# -- answers ---------------------------------------------------------------------------------------


async def test_an_answer_is_whole(engine: TritonEngine) -> None:
    chunks = await read(engine.generate("two words", max_tokens=3))

    assert (joined(chunks), sum(chunk.tokens for chunk in chunks)) == ("w0 w1 w2 ", 3)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]


async def test_one_that_ends_before_its_limit_has_stopped(
    engine: TritonEngine, server: Server
) -> None:
    server.ends_at = 2

    chunks = await read(engine.generate("w", max_tokens=9))

    assert (joined(chunks), chunks[-1].finish_reason) == ("w0 w1 ", "stop")


async def test_choices_are_told_apart(engine: TritonEngine) -> None:
    chunks = await read(engine.generate("w", max_tokens=2, n=2))

    assert (joined(chunks, 0), joined(chunks, 1)) == ("w0 w1 ", "w0 w1 ")
    assert {chunk.index for chunk in chunks if chunk.finish_reason == "length"} == {0, 1}


async def test_what_was_asked_for_is_what_triton_gets(engine: TritonEngine, server: Server) -> None:
    sampling = Sampling(
        temperature=0.5, top_p=0.75, seed=3, frequency_penalty=0.25, presence_penalty=0.125
    )

    await read(
        engine.open(
            GenerationRequest(prompt="wé", max_tokens=1, stop=("a", "b"), sampling=sampling)
        )
    )

    assert server.requests == [
        {
            "model_name": "ensemble",
            "text_input": "wé".encode(),
            "stop_words": [b"a", b"b"],
            "max_tokens": 1,
            "stream": True,
            "exclude_input_in_output": True,
            "temperature": 0.5,
            "top_p": 0.75,
            "seed": 3,
            "frequency_penalty": 0.25,
            "presence_penalty": 0.125,
        }
    ]


@pytest.mark.parametrize(
    ("sampling", "asked"),
    [
        (Sampling(), {}),
        (Sampling(temperature=0, top_p=0.5), {"top_k": 1}),  # it knows no 0
        (Sampling(temperature=0.5), {"temperature": 0.5, "top_p": 1.0}),  # else it is ignored
    ],
)
async def test_a_temperature_means_what_it_means_elsewhere(
    engine: TritonEngine, server: Server, sampling: Sampling, asked: dict[str, float]
) -> None:
    await read(engine.open(GenerationRequest(prompt="w", max_tokens=1, sampling=sampling)))

    (request,) = server.requests
    assert {name: request[name] for name in request if name[:3] in {"tem", "top"}} == asked


async def test_without_a_limit_it_is_told_ours(engine: TritonEngine, server: Server) -> None:
    server.ends_at = 1

    await read(engine.generate("w"))

    assert server.requests[0]["max_tokens"] == 256


# -- leaving ---------------------------------------------------------------------------------------


async def test_a_cancel_at_any_moment_ends_the_call_and_no_more_is_claimed(asked: Ask) -> None:
    generation: Generation

    async def scenario() -> None:
        nonlocal generation
        triton_stub.SERVERS.clear()
        engine = TritonEngine("here")
        await engine.load()
        generation = engine.generate("w", max_tokens=3)
        await read(generation)
        report = await generation.wait_stopped()
        await wait_held(10)
        if generation.cancellation is not None and report.told_after is not None:
            assert (report.proof, report.answered) == (Proof.CLOSED, False)
            assert (report.told_after, report.stopped_after) == (0, 0)
        await engine.aclose()

    def check() -> None:
        assert triton_stub.SERVERS["here"].running == 0

    def act() -> None:
        generation.cancel(asked())

    assert (await every_moment(scenario, act, check=check)).runs > 6


async def test_a_cancelled_call_leaves_the_others_alone(
    engine: TritonEngine, server: Server, asked: Ask
) -> None:
    server.slot = anyio.Semaphore(2)
    left, stays = (engine.generate("w", max_tokens=9) for _ in range(2))
    await anext(left)
    await anext(stays)
    left.cancel(asked())

    assert joined(await read(stays)) == "w1 w2 w3 w4 w5 w6 w7 w8 "
    assert server.cancelled == 1
    assert (await prove_stopped(left, engine)).proof is Proof.CLOSED


async def test_every_promise_about_cancels_is_kept() -> None:
    def make() -> TritonEngine:
        triton_stub.SERVERS.clear()
        return TritonEngine(InferenceServerClient("here"))

    report = await check_engine(
        make,
        CheckPlan(
            untried=("stop",), registries=lambda _: {"running": triton_stub.SERVERS["here"].running}
        ),
    )

    report.raise_if_failed()
    assert report.cancels == 200
    assert report.verified["proof"] == "claims closed; gave closed at least"


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("StatusCode.UNAVAILABLE", RequestRefused),
        ("StatusCode.INVALID_ARGUMENT", BadPayload),
        ("StatusCode.INTERNAL", EngineFailed),
        (None, EngineFailed),  # what a stream says of one request has no status
    ],
)
async def test_an_error_says_who_has_to_act(
    engine: TritonEngine, server: Server, status: str | None, error: type[Exception]
) -> None:
    server.error = InferenceServerException("it broke", status)

    with pytest.raises(error, match="it broke"):
        await read(engine.generate("w", max_tokens=1))

    assert engine.failure is None
    await anyio.sleep(STEP)


async def test_a_server_that_is_not_there_is_said_at_the_load() -> None:
    with pytest.raises(EngineFailed, match="Triton at nowhere does not answer: failed to connect"):
        await TritonEngine("nowhere").load()
    with pytest.raises(EngineFailed, match="Triton at here has no model 'mine' that is ready"):
        await TritonEngine("here", model="mine").load()


async def test_it_refuses_until_it_is_loaded() -> None:
    with pytest.raises(RequestRefused, match="is not loaded: await its load"):
        await read(TritonEngine("here").generate("w"))


async def test_what_it_cannot_be_asked_for_is_refused(engine: TritonEngine) -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        engine.open(GenerationRequest())
    with pytest.raises(UnsupportedOption, match="prompt_ids is not supported by engine triton"):
        engine.open(GenerationRequest(prompt_ids=(1,)))


async def test_what_it_was_given_it_leaves_open() -> None:
    client = InferenceServerClient("here")
    engine = TritonEngine(client)
    await engine.load()
    await engine.aclose()

    assert not client.closed
    with pytest.raises(EngineFailed, match="is closed"):
        await read(engine.generate("w"))


async def test_options_from_text() -> None:
    engine = build("triton", {"url": "here", "max_tokens": "7"})
    assert isinstance(engine, TritonEngine)
    await engine.load()

    assert len(joined(await read(engine.generate("w"))).split()) == 7
    await engine.aclose()


def test_a_missing_client_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(MissingPackage) as caught:
        build("triton")

    assert str(caught.value) == (
        "engine triton needs the package tritonclient, which is not installed: "
        "pip install 'tritonclient[grpc]'"
    )
