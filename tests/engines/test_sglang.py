"""The adapter for SGLang against a stub that has its corners."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from streamkit._core import Cancellation, wait_held
from streamkit.engines import (
    Chunk,
    Generation,
    GenerationRequest,
    LadderLimits,
    Message,
    Misbehaviour,
    Proof,
    Sampling,
    SGLangEngine,
    StopReport,
    build,
    prove_stopped,
)
from streamkit.errors import BadPayload, EngineFailed, MissingPackage, RequestRefused
from streamkit.testing import CheckPlan, check_engine, every_moment
from tests.engine_reports import keep

from . import sglang_stub
from .sglang_stub import STEP, Engine, ReqState

Ask = Callable[..., Cancellation]
pytestmark = pytest.mark.asyncio_only  # SGLang is asyncio's


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in sglang_stub.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


async def read(generation: Generation) -> list[Chunk]:
    return [chunk async for chunk in generation]


async def cut(engine: SGLangEngine, generation: Generation, asked: Ask) -> StopReport:
    generation.cancel(asked())
    assert await read(generation) == []
    report = await prove_stopped(generation, engine)
    await wait_held(20)
    return report


def text_of(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("incremental", [False, True])
async def test_an_answer_is_whole(incremental: bool) -> None:
    words = ["a ", "b ", "c "]
    engine = SGLangEngine(Engine(words=words, incremental_streaming_output=incremental))
    generation = engine.generate("two words", max_tokens=3)

    chunks = await read(generation)

    assert chunks == [Chunk("a "), Chunk("b "), Chunk("c ", finish_reason="length")]
    assert (generation.usage.prompt_tokens, generation.usage.handed_over) == (2, 3)


async def test_choices_are_told_apart_and_each_has_an_id_of_our_own() -> None:
    sglang = Engine(words=["a ", "b "], max_running_requests=2)
    engine = SGLangEngine(sglang)
    request = GenerationRequest(prompt="w", max_tokens=2, n=2, sampling=Sampling(seed=5))
    generation = engine.open(request)
    first = await anext(generation)
    rids = list(sglang.tokenizer_manager.rid_to_state)

    chunks = [first, *await read(generation)]

    assert (text_of(chunks, 0), text_of(chunks, 1)) == ("a b ", "a b ")
    assert {chunk.index for chunk in chunks if chunk.finish_reason == "length"} == {0, 1}
    assert len({len(rid) for rid in rids}) == 1
    assert not rids[1].startswith(rids[0])
    params = sglang.calls[0]["params"]
    assert [one["sampling_seed"] for one in params] == [5, 6]  # else they were the same text
    assert all("n" not in one for one in params)


async def test_a_slow_reader_gets_everything_once() -> None:
    engine = SGLangEngine(Engine(words=["a ", "b ", "c "]))
    generation = engine.generate("w", max_tokens=6)
    first = await anext(generation)
    await anyio.sleep(4 * STEP)

    chunks = [first, *await read(generation)]

    assert text_of(chunks) == "a b c a b c "
    assert sum(chunk.tokens for chunk in chunks) == 6


async def test_a_stop_string_is_no_part_of_the_text_wherever_its_tokens_end() -> None:
    engine = SGLangEngine(Engine(words=["one ", "<e", "nd", "> two"]))
    request = GenerationRequest(prompt="w", max_tokens=9, stop=("<end>",))

    chunks = await read(engine.open(request))

    assert text_of(chunks) == "one "
    assert chunks[-1].finish_reason == "stop"


async def test_what_was_asked_for_is_what_sglang_gets() -> None:
    sglang = Engine()
    sampling = Sampling(
        temperature=0.5, top_p=0.9, seed=3, frequency_penalty=0.1, presence_penalty=0.2, logprobs=2
    )
    request = GenerationRequest(prompt_ids=(4, 5), max_tokens=1, stop=("a", "b"), sampling=sampling)

    await read(SGLangEngine(sglang).open(request))

    (call,) = sglang.calls
    assert (call["input_ids"], call["prompt"]) == ([4, 5], None)
    assert call["params"] == {
        "max_new_tokens": 1,
        "stop": ["a", "b"],
        "temperature": 0.5,
        "top_p": 0.9,
        "sampling_seed": 3,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
    }


async def test_without_any_limit_the_models_length_is_it(asked: Ask) -> None:
    sglang = Engine()
    engine = SGLangEngine(sglang)
    generation = engine.generate("w")
    await anext(generation)

    assert sglang.calls[0]["params"] == {"max_new_tokens": None}  # its own default is 128
    assert generation.limit is None
    await cut(engine, generation, asked)


async def test_messages_go_through_the_models_template() -> None:
    sglang = Engine(template="a template")
    engine = SGLangEngine(sglang)

    await read(engine.open(GenerationRequest(messages=(Message("user", "hi"),), max_tokens=1)))

    assert sglang.calls[0]["input_ids"] == [7]  # as ids: special tokens are in them already
    assert "messages" in engine.capabilities.takes
    with pytest.raises(BadPayload, match="a conversation begins with its user"):
        await read(engine.open(GenerationRequest(messages=(Message("assistant", "well"),))))


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("wanted", [0, 2])
async def test_log_probabilities_are_told_once(wanted: int, incremental: bool) -> None:
    sglang = Engine(words=["a", "b", "c"], incremental_streaming_output=incremental)
    request = GenerationRequest(prompt="w", max_tokens=2, sampling=Sampling(logprobs=wanted))

    chunks = await read(SGLangEngine(sglang).open(request))

    said = [(one.token, one.logprob) for chunk in chunks for one in chunk.logprobs]
    assert said == [("a", -0.5), ("b", -0.5)]
    assert chunks[0].logprobs[0].top == (("b", -0.1), ("c", -1.1))[:wanted]


# -- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("prompt", ["w", "w " * 3 * sglang_stub.CHUNK])
async def test_a_cancel_at_any_moment_stops_it_and_leaves_nothing(
    asked: Ask, n: int, prompt: str
) -> None:
    sglang: Engine
    generation: Generation

    async def scenario() -> None:
        nonlocal sglang, generation
        sglang = Engine()
        engine = SGLangEngine(sglang)
        generation = engine.generate(prompt, max_tokens=3, n=n)
        await read(generation)
        report = await generation.wait_stopped()
        await wait_held(20)
        if generation.cancellation is not None and report.told_after is not None:
            assert report.proof is Proof.OBSERVED
            assert report.stopped_after is not None
            assert report.stopped_after <= 4 * STEP
        books = engine.statistics()
        assert books is not None
        assert books.misbehaviours == {}

    def check() -> None:
        assert sglang.idle

    runs = await every_moment(scenario, lambda: generation.cancel(asked()), check=check)

    assert runs.runs > 12


async def test_one_that_waits_in_the_queue_never_runs(asked: Ask) -> None:
    sglang = Engine()
    engine = SGLangEngine(sglang)
    first, second = (engine.generate("w", max_tokens=50) for _ in range(2))
    await anext(first)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, second)
        await anyio.sleep(3 * STEP)
        report = await cut(engine, second, asked)

    assert report.proof is Proof.OBSERVED
    assert sglang.tokenizer_manager.scheduler.waiting == []
    await cut(engine, first, asked)


async def test_an_abort_ends_nobody_else() -> None:
    """The scheduler would end whatever begins with the id."""
    sglang = Engine(max_running_requests=3)
    engine = SGLangEngine(sglang)
    request = GenerationRequest(prompt="w", max_tokens=9)
    left = engine.open(request, request_id="job-1")
    stays = engine.open(request, request_id="job-10")
    await anext(left)
    await anext(stays)
    await left.aclose()

    assert sum(chunk.tokens for chunk in await read(stays)) == 8
    await wait_held(20)


async def test_the_stub_matches_prefixes_and_loses_an_abort_within_a_submit() -> None:
    """What ids and order are for; without these the tests above show nothing."""
    sglang = Engine(max_running_requests=3)
    manager = sglang.tokenizer_manager
    params = {"max_new_tokens": 30}
    manager.abort_request("job-1")  # before it is known: ignored
    streams = [
        await sglang.async_generate("w", params, stream=True, rid=rid)
        for rid in ("job-1", "job-10")
    ]
    for stream in streams:
        await anext(stream)
    manager.abort_request("job-1")
    await anyio.sleep(3 * STEP)
    assert manager.scheduler.running == []  # both
    for stream in streams:
        await stream.aclose()

    state = manager.rid_to_state["job-2"] = ReqState("job-2", params, None)
    manager.abort_request("job-2")  # between the two halves
    await anyio.lowlevel.checkpoint()
    manager.scheduler.send(sglang_stub.Req("job-2", 1, 9))
    manager.abort_request("job-2")
    await anyio.sleep(3 * STEP)
    assert state.abort_sent
    assert [req.rid for req in manager.scheduler.running] == ["job-2"]
    await manager.scheduler.aclose()


async def test_one_that_ignores_its_abort_is_never_taken_for_stopped(asked: Ask) -> None:
    sglang = Engine()
    sglang.tokenizer_manager.scheduler.deaf = True
    engine = SGLangEngine(sglang)
    generation = engine.generate("w", max_tokens=5000)
    await anext(generation)
    generation.cancel(asked())

    report = await prove_stopped(generation, engine)

    assert (report.outcome, report.misbehaviour) == ("running", Misbehaviour.IGNORED)
    await wait_held(60)
    await sglang.tokenizer_manager.scheduler.aclose()


async def test_every_promise_about_cancels_is_kept() -> None:
    plan = CheckPlan(
        long_prompt="word " * 8_000,
        registries=lambda engine: {
            "rid_to_state": len(engine._engine.tokenizer_manager.rid_to_state),
            "scheduler": 0 if engine._engine.idle else 1,
        },
    )

    report = await check_engine(lambda: SGLangEngine(Engine()), plan)

    report.raise_if_failed()
    await keep(report, "sglang", stub=True)
    assert report.cancels == 200
    assert {"cancel_queued", "cancel_prefill", "observes", "proof"} <= set(report.verified)


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "error", "words"),
    [
        ({"type": "abort", "message": "bad grammar", "status_code": 400}, BadPayload, "bad gram"),
        ({"type": "abort", "message": "full", "status_code": 503}, RequestRefused, "full"),
        ({"type": "abort", "message": "paused"}, EngineFailed, "ended a choice with 'abort'"),
        ({"type": "abort", "message": "broke", "status_code": 500}, EngineFailed, "broke"),
    ],
)
async def test_one_that_sglang_ends_by_itself_is_no_whole_answer(
    reason: dict[str, Any], error: type[Exception], words: str
) -> None:
    sglang = Engine()
    sglang.tokenizer_manager.refusal = reason

    with pytest.raises(error, match=words):
        await read(SGLangEngine(sglang).generate("w", max_tokens=2))

    await sglang.tokenizer_manager.scheduler.aclose()


async def test_a_prompt_that_is_too_long_is_the_clients_mistake() -> None:
    sglang = Engine()

    with pytest.raises(BadPayload, match="longer than the model's context length"):
        await read(SGLangEngine(sglang).generate("w " * 9000))

    assert sglang.tokenizer_manager.rid_to_state == {}


def test_what_it_could_never_serve_is_refused_before_anything_is_submitted() -> None:
    engine = SGLangEngine(Engine())

    with pytest.raises(ValueError, match="the prompt is empty"):
        engine.open(GenerationRequest())
    with pytest.raises(ValueError, match="n must be at most 1000, got 1001"):
        engine.open(GenerationRequest(prompt="w", n=1001))


# -- its start and its end -------------------------------------------------------------------------


def test_its_capabilities_are_those_of_its_arguments() -> None:
    plain = SGLangEngine(Engine(chunked_prefill_size=-1)).capabilities
    overlapping = SGLangEngine(Engine(disable_overlap_schedule=False)).capabilities

    assert (plain.cancel_prefill, plain.extra_steps) == ("none", 2)
    assert (overlapping.cancel_prefill, overlapping.extra_steps) == ("chunk", 3)


async def test_it_refuses_until_it_is_loaded() -> None:
    engine = SGLangEngine({"model_path": "m"})

    with pytest.raises(RequestRefused, match="is not loaded: await its load"):
        await read(engine.generate("w"))

    assert engine.statistics() is None


@pytest.mark.realtime  # it is made in a thread
async def test_what_it_made_it_shuts_down() -> None:
    engine = SGLangEngine({"model_path": "m", "max_running_requests": 3})
    await engine.load()
    await engine.load()
    sglang: Any = engine._engine  # type: ignore[attr-defined]
    books = engine.statistics()
    assert books is not None
    assert books.slots == 3
    assert len(await read(engine.generate("w", max_tokens=2))) == 2

    await engine.aclose()
    await engine.aclose()

    assert sglang.shut_down
    with pytest.raises(EngineFailed, match="is closed"):
        await read(engine.generate("w"))


async def test_what_it_was_given_it_leaves_alone() -> None:
    sglang = Engine()
    engine = SGLangEngine(sglang, limits=LadderLimits(stop_bound=2))
    await engine.load()
    await engine.aclose()

    assert not sglang.shut_down


@pytest.mark.realtime
async def test_sigterm_stays_with_whom_it_belongs_to() -> None:
    heard = anyio.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: heard.set())
    try:
        sglang = Engine()
        await SGLangEngine(sglang).load()
        os.kill(os.getpid(), signal.SIGTERM)
        with anyio.fail_after(5):
            await heard.wait()
        await anyio.lowlevel.checkpoint()
    finally:
        signal.signal(signal.SIGTERM, before)

    assert not sglang.tokenizer_manager.gracefully_exit


@pytest.mark.realtime
async def test_options_from_text_are_sglangs_arguments() -> None:
    engine = build("sglang", {"model": "m", "max_running_requests": "4"})
    assert isinstance(engine, SGLangEngine)
    await engine.load()
    assert engine._engine.server_args.model_path == "m"  # type: ignore[attr-defined]
    assert engine._engine.server_args.max_running_requests == 4  # type: ignore[attr-defined]
    await engine.aclose()

    more = build("sglang", {"args": '{"model_path": "m", "context_length": 5}'})
    assert isinstance(more, SGLangEngine)
    await more.load()
    assert more._engine.server_args.context_length == 5  # type: ignore[attr-defined]
    await more.aclose()


def test_a_model_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="--engine-option model="):
        build("sglang")
    with pytest.raises(ValueError, match="option args must be a JSON object, got '3'"):
        build("sglang", {"args": "3", "model": "m"})


def test_a_missing_sglang_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(MissingPackage) as caught:
        build("sglang", {"model": "m"})

    assert str(caught.value) == (
        "engine sglang needs the package sglang, which is not installed: pip install sglang"
    )
