"""The adapter for vLLM against a stub that has its corners; tests/real/vllm has the engine."""

from __future__ import annotations

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
    StopReport,
    VLLMEngine,
    build,
    prove_stopped,
)
from streamkit.errors import BadPayload, EngineFailed, MissingPackage, RequestRefused
from streamkit.testing import every_moment

from . import vllm_stub
from .vllm_stub import STEP, AsyncLLM, EngineDeadError, SamplingParams

Ask = Callable[..., Cancellation]
pytestmark = pytest.mark.asyncio_only  # vLLM is asyncio's


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in vllm_stub.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


async def read(generation: Generation) -> list[Chunk]:
    return [chunk async for chunk in generation]


async def cut(engine: VLLMEngine, generation: Generation, asked: Ask) -> StopReport:
    generation.cancel(asked())
    assert await read(generation) == []
    report = await prove_stopped(generation, engine)
    await wait_held(10)
    return report


# -- answers ---------------------------------------------------------------------------------------


async def test_an_answer_is_whole() -> None:
    engine = VLLMEngine(AsyncLLM())
    generation = engine.generate("two words", max_tokens=3)

    chunks = await read(generation)

    assert chunks == [Chunk("w "), Chunk("w "), Chunk("w ", finish_reason="length")]
    assert (generation.usage.prompt_tokens, generation.usage.handed_over) == (2, 3)


async def test_choices_are_told_apart_and_each_ends() -> None:
    engine = VLLMEngine(AsyncLLM(slots=2))

    chunks = await read(engine.generate("w", max_tokens=2, n=2))

    assert [chunk.index for chunk in chunks] == [0, 1, 0, 1]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, "length", "length"]


async def test_what_was_asked_for_is_what_vllm_gets() -> None:
    llm = AsyncLLM()
    engine = VLLMEngine(llm)
    sampling = Sampling(
        temperature=0.5, top_p=0.9, seed=3, frequency_penalty=0.1, presence_penalty=0.2, logprobs=2
    )
    request = GenerationRequest(
        prompt_ids=(4, 5), max_tokens=1, n=2, stop=("a", "b"), sampling=sampling
    )

    await read(engine.open(request))

    ((prompt, params, _, _),) = llm.calls
    assert prompt == {"prompt_token_ids": [4, 5]}
    assert params == SamplingParams(
        n=2,
        stop=["a", "b"],
        output_kind=vllm_stub.RequestOutputKind.DELTA,
        max_tokens=1,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=2,
    )


async def test_what_was_not_asked_for_is_as_the_models_own_configuration_has_it() -> None:
    llm = AsyncLLM()
    llm.generation_config = {"temperature": 0.6, "top_k": 20, "max_tokens": 2}
    engine = VLLMEngine(llm)

    await read(engine.open(GenerationRequest(prompt="w", sampling=Sampling(temperature=0.1))))

    ((_, params, _, _),) = llm.calls
    assert (params.temperature, params.top_k, params.max_tokens) == (0.1, 20, 2)


async def test_without_any_limit_the_models_length_is_it() -> None:
    llm = AsyncLLM()
    generation = VLLMEngine(llm).generate("w")
    await anext(generation)

    assert llm.calls[0][1].max_tokens is None
    assert generation.limit is None
    await generation.aclose()
    await wait_held(10)


async def test_messages_go_through_the_models_template() -> None:
    llm = AsyncLLM(template="a template")
    engine = VLLMEngine(llm)
    request = GenerationRequest(messages=(Message("user", "hello you"),), max_tokens=1)

    await read(engine.open(request))

    ((prompt, _, _, keywords),) = llm.calls
    assert prompt == {"prompt": "<user>hello you"}
    # The template has written them already.
    assert keywords == {"add_special_tokens": False}
    assert "messages" in engine.capabilities.takes


async def test_messages_that_the_template_refuses_are_the_clients_mistake() -> None:
    engine = VLLMEngine(AsyncLLM(template="a template"))
    request = GenerationRequest(messages=(Message("assistant", "well"),))

    with pytest.raises(BadPayload, match="a conversation begins with its user"):
        await read(engine.open(request))


async def test_without_a_template_messages_are_joined() -> None:
    llm = AsyncLLM()
    engine = VLLMEngine(llm)

    await read(engine.open(GenerationRequest(messages=(Message("user", "hi"),), max_tokens=1)))

    assert llm.calls[0][0] == {"prompt": "user: hi\nassistant:"}
    assert "messages" not in engine.capabilities.takes


async def test_log_probabilities_name_the_likeliest_and_not_the_token_beside_them() -> None:
    engine = VLLMEngine(AsyncLLM())
    request = GenerationRequest(prompt="w", max_tokens=1, sampling=Sampling(logprobs=2))

    (chunk,) = await read(engine.open(request))

    (token,) = chunk.logprobs
    assert (token.token, token.logprob) == ("w ", -0.5)
    assert token.top == (("t0", -0.1), ("t1", -1.1))


# -- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("prompt", ["w", "w " * 3 * vllm_stub.CHUNK])
async def test_a_cancel_at_any_moment_stops_it_and_leaves_nothing(
    asked: Ask, n: int, prompt: str
) -> None:
    llm: AsyncLLM
    generation: Generation

    async def scenario() -> None:
        nonlocal llm, generation
        llm = AsyncLLM()
        engine = VLLMEngine(llm)
        generation = engine.generate(prompt, max_tokens=3, n=n)
        await read(generation)
        report = await generation.wait_stopped()
        await wait_held(10)
        if generation.cancellation is not None and report.told_after is not None:
            assert report.proof == Proof.FENCED
            assert report.stopped_after is not None
            assert report.stopped_after <= 2 * STEP
        assert engine.statistics() is None or engine.statistics().misbehaviours == {}

    def check() -> None:
        assert llm.core.states == {}
        assert llm.output_processor.empty, vars(llm.output_processor)

    runs = await every_moment(scenario, lambda: generation.cancel(asked()), check=check)

    assert runs.runs > 12


async def test_the_stub_loses_an_early_abort_and_leaks_parents_as_vllm_does() -> None:
    """What the order close, abort, fence is for; without these the test above shows nothing."""
    llm = AsyncLLM(slots=2)
    await llm.abort("mine")  # before the first output is asked for
    outputs = llm.generate({"prompt": "w"}, SamplingParams(n=2, max_tokens=50), "mine")
    await anext(outputs)
    await llm.abort("mine")
    await anyio.sleep(2 * STEP)

    assert llm.core.states == {}
    assert list(llm.output_processor.parent_requests)
    await outputs.aclose()


async def test_one_that_waits_in_the_queue_never_runs(asked: Ask) -> None:
    llm = AsyncLLM(slots=1)
    engine = VLLMEngine(llm)
    first, second = engine.generate("w", max_tokens=20), engine.generate("w", max_tokens=20)
    await anext(first)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, second)
        await anyio.sleep(3 * STEP)
        assert (engine.statistics().running, engine.statistics().queued) == (1, 1)  # type: ignore[union-attr]
        report = await cut(engine, second, asked)
    await anyio.sleep(2 * STEP)

    assert report.proof is Proof.FENCED
    assert (engine.statistics().running, engine.statistics().queued) == (1, 0)  # type: ignore[union-attr]
    await cut(engine, first, asked)


async def test_what_vllm_makes_after_an_abort_is_not_claimed_to_be_nothing(asked: Ask) -> None:
    """Its front end drops those tokens before anybody counts them."""
    engine = VLLMEngine(AsyncLLM())
    generation = engine.generate("w", max_tokens=20)
    await anext(generation)

    report = await cut(engine, generation, asked)

    assert report.tokens_after_cancel is None


# -- what goes wrong -------------------------------------------------------------------------------


async def test_a_core_that_dies_fails_its_readers_and_whoever_comes_later() -> None:
    llm = AsyncLLM()
    engine = VLLMEngine(llm)
    generation = engine.generate("w", max_tokens=20)
    await anext(generation)
    llm.die()

    with pytest.raises(EngineFailed) as caught:
        await read(generation)

    assert isinstance(caught.value.__cause__, EngineDeadError)
    assert engine.failure is not None
    with pytest.raises(EngineFailed, match="engine vllm is dead"):
        await read(engine.generate("w"))
    await llm.core.aclose()


async def test_a_core_that_dies_without_a_word_gives_no_proof_and_keeps_nobody_waiting(
    asked: Ask,
) -> None:
    llm = AsyncLLM()
    engine = VLLMEngine(llm, limits=LadderLimits(stop_bound=60))
    generation = engine.generate("w", max_tokens=20)
    await anext(generation)
    generation.cancel(asked())
    while len(llm.core.inbox) < 2:  # the abort, and the round trip that nobody will answer
        await anyio.lowlevel.checkpoint()
    llm.kill_quietly()

    report = await prove_stopped(generation, engine)

    assert report.outcome == "failed"
    assert report.misbehaviour is Misbehaviour.CRASHED
    assert report.stopped_after is not None
    assert report.stopped_after < 1
    await wait_held(10)
    await llm.core.aclose()


def test_a_death_that_nobody_was_told_of_is_seen() -> None:
    llm = AsyncLLM()
    engine = VLLMEngine(llm)
    assert engine.failure is None

    llm.core.dead = True

    assert isinstance(engine.failure, EngineDeadError)


async def test_one_that_vllm_ends_by_itself_is_no_whole_answer() -> None:
    llm = AsyncLLM()
    engine = VLLMEngine(llm)
    generation = engine.generate("w", max_tokens=20)
    await anext(generation)
    await llm.abort(llm.calls[0][2])  # as pause_generation(mode="abort") does

    with pytest.raises(EngineFailed, match="'abort': it was paused"):
        await read(generation)
    await llm.core.aclose()


async def test_a_refusal_says_when_to_come_back() -> None:
    llm = AsyncLLM()
    llm.refusal = vllm_stub.RetryableRequestError("paused")

    with pytest.raises(RequestRefused, match="paused") as caught:
        await read(VLLMEngine(llm).generate("w"))

    assert caught.value.status == 503


async def test_a_prompt_that_is_too_long_is_the_clients_mistake() -> None:
    with pytest.raises(BadPayload, match="longer than the maximum model length"):
        await read(VLLMEngine(AsyncLLM()).generate("w " * 9000))


def test_a_value_out_of_its_range_is_refused_before_anything_is_submitted() -> None:
    engine = VLLMEngine(AsyncLLM())

    with pytest.raises(ValueError, match="top_p must be in"):
        engine.open(GenerationRequest(prompt="w", sampling=Sampling(top_p=7)))
    with pytest.raises(ValueError, match="the prompt is empty"):
        engine.open(GenerationRequest())


# -- its start and its end -------------------------------------------------------------------------


async def test_books_are_the_schedulers_own() -> None:
    engine = VLLMEngine(AsyncLLM(slots=2))
    generation = engine.generate("w", max_tokens=20, n=3)
    await anext(generation)

    books = engine.statistics()
    assert books is not None
    assert (books.slots, books.running, books.queued) == (2, 2, 1)
    assert books.tokens == 2
    assert engine.capabilities.observes
    await generation.aclose()
    await wait_held(10)
    await anyio.sleep(2 * STEP)
    books = engine.statistics()
    assert books is not None
    assert (books.running, books.queued) == (0, 0)


def test_an_engine_without_statistics_claims_none() -> None:
    engine = VLLMEngine(AsyncLLM(log_stats=False))

    assert engine.statistics() is None
    assert not engine.capabilities.observes


async def test_it_refuses_until_it_is_loaded() -> None:
    engine = VLLMEngine({"model": "m"})

    with pytest.raises(RequestRefused, match="is not loaded: await its load"):
        await read(engine.generate("w"))

    assert engine.statistics() is None


@pytest.mark.realtime  # vLLM is made in a thread
async def test_what_it_made_it_shuts_down() -> None:
    engine = VLLMEngine({"model": "m", "max_num_seqs": 3})
    await engine.load()
    await engine.load()
    llm: Any = engine._llm  # type: ignore[attr-defined]
    assert engine.statistics().slots == 3  # type: ignore[union-attr]
    assert len(await read(engine.generate("w", max_tokens=2))) == 2

    await engine.aclose()
    await engine.aclose()

    assert llm.shut_down


async def test_what_it_was_given_it_leaves_alone() -> None:
    llm = AsyncLLM()
    engine = VLLMEngine(llm)
    await engine.load()

    await engine.aclose()

    assert not llm.shut_down
    assert llm.logger_manager.stat_loggers == []
    with pytest.raises(EngineFailed, match="is closed"):
        await read(engine.generate("w"))


@pytest.mark.realtime
async def test_options_from_text_are_vllms_arguments() -> None:
    engine = build("vllm", {"model": "m", "max_num_seqs": "4"})
    assert isinstance(engine, VLLMEngine)
    await engine.load()
    assert engine.statistics().slots == 4  # type: ignore[union-attr]
    await engine.aclose()

    more = build("vllm", {"args": '{"model": "m", "max_num_seqs": 5}'})
    assert isinstance(more, VLLMEngine)
    await more.load()
    assert more.statistics().slots == 5  # type: ignore[union-attr]
    await more.aclose()


def test_a_model_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="--engine-option model="):
        build("vllm")


def test_arguments_that_are_no_object_are_refused() -> None:
    with pytest.raises(ValueError, match="option args must be a JSON object, got '3'"):
        build("vllm", {"args": "3", "model": "m"})


def test_a_missing_vllm_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(MissingPackage) as caught:
        build("vllm", {"model": "m"})

    assert str(caught.value) == (
        "engine vllm needs the package vllm, which is not installed: pip install vllm"
    )
