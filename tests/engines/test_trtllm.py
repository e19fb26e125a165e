"""The adapter for TensorRT-LLM against a stub that has its corners."""

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
    TensorRTLLMEngine,
    build,
    prove_stopped,
)
from streamkit.errors import BadPayload, EngineFailed, MissingPackage, RequestRefused
from streamkit.testing import CheckPlan, check_engine, every_moment
from tests.engine_reports import keep

from . import trtllm_stub
from .trtllm_stub import LLM, STEP, CppExecutorError, SamplingParams

Ask = Callable[..., Cancellation]
pytestmark = pytest.mark.asyncio_only  # TensorRT-LLM is asyncio's


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in trtllm_stub.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


async def read(generation: Generation) -> list[Chunk]:
    return [chunk async for chunk in generation]


async def cut(engine: TensorRTLLMEngine, generation: Generation, asked: Ask) -> StopReport:
    generation.cancel(asked())
    assert await read(generation) == []
    report = await prove_stopped(generation, engine)
    await wait_held(20)
    return report


# -- answers ---------------------------------------------------------------------------------------


async def test_an_answer_is_whole() -> None:
    engine = TensorRTLLMEngine(LLM())
    generation = engine.generate("two words", max_tokens=3)

    chunks = await read(generation)

    assert chunks == [Chunk("w "), Chunk("w "), Chunk("w ", finish_reason="length")]
    assert (generation.usage.prompt_tokens, generation.usage.handed_over) == (3, 3)
    assert (await generation.wait_stopped()).tokens_made == 3


async def test_choices_say_what_they_said_once_though_the_handle_says_it_again() -> None:
    llm = LLM(words=["a ", "b ", "c "])
    engine = TensorRTLLMEngine(llm)

    chunks = await read(engine.generate("w", max_tokens=3, n=2))

    texts = ["".join(chunk.text for chunk in chunks if chunk.index == index) for index in (0, 1)]
    assert texts == ["a b c ", "a b c "]
    assert sum(chunk.tokens for chunk in chunks) == 6


async def test_a_choice_that_ends_before_the_others_has_a_reason_all_the_same() -> None:
    llm = LLM()
    llm.worker.limits = lambda index: (2, 99)[index]  # the first one stops by itself
    engine = TensorRTLLMEngine(llm)

    chunks = await read(engine.generate("w", max_tokens=4, n=2))

    ends = {chunk.index: chunk.finish_reason for chunk in chunks if chunk.finish_reason}
    assert ends == {0: "stop", 1: "length"}


async def test_a_slow_reader_gets_everything_once() -> None:
    engine = TensorRTLLMEngine(LLM(words=["a ", "b ", "c ", "d "]))
    generation = engine.generate("w", max_tokens=8)
    first = await anext(generation)
    await anyio.sleep(5 * STEP)

    rest = await read(generation)

    assert first.text + "".join(chunk.text for chunk in rest) == "a b c d a b c d "
    assert first.tokens + sum(chunk.tokens for chunk in rest) == 8


async def test_a_stop_string_is_no_part_of_the_text_wherever_its_tokens_end() -> None:
    engine = TensorRTLLMEngine(LLM(words=["one ", "<e", "nd", "> two"]))
    request = GenerationRequest(prompt="w", max_tokens=9, stop=("<end>",))

    chunks = await read(engine.open(request))

    assert "".join(chunk.text for chunk in chunks) == "one "
    assert chunks[-1].finish_reason == "stop"
    await anyio.sleep(3 * STEP)


async def test_what_only_looked_like_a_stop_string_is_handed_on() -> None:
    engine = TensorRTLLMEngine(LLM(words=["a ", "<e", "b "]))
    request = GenerationRequest(prompt="w", max_tokens=5, stop=("<end>",))

    chunks = await read(engine.open(request))

    assert "".join(chunk.text for chunk in chunks) == "a <eb a <e"


async def test_what_was_asked_for_is_what_it_gets() -> None:
    llm = LLM()
    sampling = Sampling(
        temperature=0.5, top_p=0.9, seed=3, frequency_penalty=0.1, presence_penalty=0.2, logprobs=2
    )
    request = GenerationRequest(prompt_ids=(4, 5), max_tokens=1, stop=("a", "b"), sampling=sampling)

    await read(TensorRTLLMEngine(llm).open(request))

    ((prompt, params),) = llm.calls
    assert prompt == {"prompt_token_ids": [4, 5]}
    assert params == SamplingParams(
        max_tokens=1,
        stop=["a", "b"],
        temperature=0.5,
        top_p=0.9,
        seed=3,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=2,
    )


@pytest.mark.parametrize(
    ("sampling", "n", "top_k", "top_p", "temperature"),
    [
        (Sampling(), 1, None, None, None),  # as its own default has it
        (Sampling(temperature=0), 1, 1, None, None),  # it knows no 0
        (Sampling(temperature=0.7), 1, None, 1.0, 0.7),  # else it is ignored
        (Sampling(top_p=0.5), 1, None, 0.5, None),
        (Sampling(), 2, None, 1.0, None),  # else it refuses two choices
    ],
)
async def test_a_temperature_means_what_it_means_elsewhere(
    sampling: Sampling, n: int, top_k: int | None, top_p: float | None, temperature: float | None
) -> None:
    llm = LLM()
    request = GenerationRequest(prompt="w", max_tokens=1, n=n, sampling=sampling)

    await read(TensorRTLLMEngine(llm).open(request))

    params = llm.calls[0][1]
    assert (params.top_k, params.top_p, params.temperature) == (top_k, top_p, temperature)


async def test_without_any_limit_the_models_length_is_it() -> None:
    llm = LLM()
    llm.worker.limits = lambda _: 5
    generation = TensorRTLLMEngine(llm).generate("w")

    assert len(await read(generation)) == 5
    assert llm.calls[0][1].max_tokens is None  # its own default is 32
    assert generation.limit is None


async def test_messages_go_through_the_models_template() -> None:
    llm = LLM(template="a template")
    engine = TensorRTLLMEngine(llm)

    await read(engine.open(GenerationRequest(messages=(Message("user", "hi"),), max_tokens=1)))

    ((prompt, params),) = llm.calls
    assert prompt == {"prompt": "<user>hi"}
    assert not params.add_special_tokens  # the template has written them already
    assert "messages" in engine.capabilities.takes
    with pytest.raises(BadPayload, match="a conversation begins with its user"):
        await read(engine.open(GenerationRequest(messages=(Message("assistant", "well"),))))


async def test_without_a_template_messages_are_joined() -> None:
    llm = LLM()
    engine = TensorRTLLMEngine(llm)

    await read(engine.open(GenerationRequest(messages=(Message("user", "hi"),), max_tokens=1)))

    assert llm.calls[0][0] == {"prompt": "user: hi\nassistant:"}
    assert "messages" not in engine.capabilities.takes


@pytest.mark.parametrize("wanted", [0, 2])
async def test_log_probabilities_name_the_likeliest(wanted: int) -> None:
    engine = TensorRTLLMEngine(LLM(words=["a", "b", "c"]))
    request = GenerationRequest(prompt="w", max_tokens=2, sampling=Sampling(logprobs=wanted))

    chunks = await read(engine.open(request))

    said = [(one.token, one.logprob) for chunk in chunks for one in chunk.logprobs]
    assert said == [("a", -0.5), ("b", -0.5)]
    assert chunks[0].logprobs[0].top == (("b", -0.1), ("c", -1.1))[:wanted]


# -- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("prompt", ["w", "w " * 3 * trtllm_stub.CHUNK])
async def test_a_cancel_at_any_moment_stops_it_and_leaves_nothing(
    asked: Ask, n: int, prompt: str
) -> None:
    llm: LLM
    generation: Generation

    async def scenario() -> None:
        nonlocal llm, generation
        llm = LLM()
        engine = TensorRTLLMEngine(llm)
        generation = engine.generate(prompt, max_tokens=3, n=n)
        await read(generation)
        report = await generation.wait_stopped()
        await wait_held(20)
        if generation.cancellation is not None and report.told_after is not None:
            assert report.stopped_after is not None
            if report.proof is Proof.CLOSED:  # before it left the queue: dropped in silence
                assert llm.worker.tokens == 0
            else:
                assert report.proof is Proof.ANSWERED
                assert report.stopped_after <= 2 * STEP
        assert engine._runs.misbehaviours == {}  # type: ignore[attr-defined]

    def check() -> None:
        assert llm.idle

    runs = await every_moment(scenario, lambda: generation.cancel(asked()), check=check)

    assert runs.runs > 8


async def test_one_that_runs_says_a_last_word(asked: Ask) -> None:
    llm = LLM()
    engine = TensorRTLLMEngine(llm)
    generation = engine.generate("w", max_tokens=50)
    await anext(generation)

    report = await cut(engine, generation, asked)

    assert (report.proof, report.answered) == (Proof.ANSWERED, True)
    assert report.stopped_after is not None
    assert report.stopped_after <= 2 * STEP
    assert report.tokens_after_cancel == 1  # the step that was running
    assert llm.idle


async def test_one_in_prefill_says_a_last_word(asked: Ask) -> None:
    engine = TensorRTLLMEngine(LLM())
    generation = engine.generate("w " * 4000, max_tokens=50)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, generation)
        await anyio.sleep(2.5 * STEP)
        report = await cut(engine, generation, asked)

    assert (report.proof, report.tokens_made) == (Proof.ANSWERED, 0)


async def test_one_that_waits_is_dropped_in_silence_and_nobody_waits_for_a_word(asked: Ask) -> None:
    llm = LLM()
    engine = TensorRTLLMEngine(llm)
    first, second = (engine.generate("w", max_tokens=200) for _ in range(2))
    await anext(first)
    ended: list[float] = []

    async def wait() -> None:
        await read(second)
        ended.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(3 * STEP)
        at = anyio.current_time()
        second.cancel(asked())
        report = await prove_stopped(second, engine)

    assert ended == [at]
    assert llm.worker.waiting == []
    assert (report.proof, report.answered) == (Proof.CLOSED, False)
    assert (report.steps, report.misbehaviour) == ((), None)
    assert report.stopped_after == pytest.approx(0.5 * engine.limits.stop_bound)
    assert (await cut(engine, first, asked)).proof is Proof.ANSWERED


async def test_the_other_backend_keeps_an_aborted_one_in_its_queue_and_does_not_claim_more(
    asked: Ask,
) -> None:
    llm = LLM(backend="tensorrt", queued_cancel="on_admission")
    engine = TensorRTLLMEngine(llm)
    assert not engine.capabilities.cancel_queued
    first, second = (engine.generate("w", max_tokens=100) for _ in range(2))
    await anext(first)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, second)
        await anyio.sleep(3 * STEP)
        report = await cut(engine, second, asked)

    assert report.proof is Proof.CLOSED
    await cut(engine, first, asked)
    await anyio.sleep(3 * STEP)
    assert llm.idle
    assert llm.worker.tokens < 100


async def test_one_that_runs_and_ignores_its_abort_is_never_taken_for_stopped(asked: Ask) -> None:
    llm = LLM()
    llm.worker.deaf = True
    engine = TensorRTLLMEngine(llm)
    generation = engine.generate("w", max_tokens=5000)
    await anext(generation)
    generation.cancel(asked())

    report = await prove_stopped(generation, engine)
    await wait_held(60)

    assert (report.outcome, report.misbehaviour) == ("running", Misbehaviour.IGNORED)
    assert report.steps == ("again", "quarantine", "report")
    assert not (await generation.wait_stopped(0)).stopped  # also when nobody reads any more
    await llm.worker.aclose()


async def test_one_that_heeds_only_its_second_abort_is_believed_then(asked: Ask) -> None:
    llm = LLM()
    llm.worker.deaf = True
    engine = TensorRTLLMEngine(llm)
    generation = engine.generate("w", max_tokens=5000)
    await anext(generation)
    generation.cancel(asked())
    await anyio.sleep(3 * STEP)
    llm.worker.deaf = False

    report = await prove_stopped(generation, engine)

    assert (report.proof, report.misbehaviour) == (Proof.ANSWERED, Misbehaviour.LOST)
    await wait_held(60)


async def test_a_cancel_from_a_thread_aborts_in_the_thread_that_submitted(asked: Ask) -> None:
    llm = LLM()
    engine = TensorRTLLMEngine(llm)
    generation = engine.generate("w", max_tokens=50)
    await anext(generation)

    await anyio.to_thread.run_sync(generation.cancel, asked())

    assert (await prove_stopped(generation, engine)).proof is Proof.ANSWERED
    assert llm.foreign_aborts == 0
    await wait_held(20)


async def test_the_stub_ignores_who_leaves_and_loses_an_abort_from_another_thread() -> None:
    """What the adapter is for; without these the tests above show nothing."""
    llm = LLM()
    handle = llm.generate_async({"prompt": "w"}, SamplingParams(max_tokens=50), streaming=True)
    async for _ in handle:
        break
    await anyio.sleep(3 * STEP)
    assert llm.worker.active
    assert not handle.aborted()

    await anyio.to_thread.run_sync(handle.abort)
    await anyio.sleep(2 * STEP)

    assert llm.worker.active
    assert llm.foreign_aborts == 1
    handle.abort()
    while not handle.finished:
        assert await anext(handle) is handle
    assert handle.outputs[0].finish_reason == "cancelled"


async def test_every_promise_about_cancels_is_kept() -> None:
    plan = CheckPlan(
        long_prompt="word " * 4_000,
        registries=lambda engine: {"worker": 0 if engine._llm.idle else 1},
        die=lambda engine: engine._llm.die(),
    )

    report = await check_engine(lambda: TensorRTLLMEngine(LLM()), plan)

    report.raise_if_failed()
    await keep(report, "trtllm", stub=True)
    await anyio.sleep(STEP)  # the stub's own end
    assert report.cancels == 200
    assert {"cancel_prefill", "extra_steps", "answers_cancel", "proof"} <= set(report.verified)


# -- what goes wrong -------------------------------------------------------------------------------


async def test_an_executor_that_dies_fails_its_readers_and_whoever_comes_later() -> None:
    llm = LLM(max_batch_size=2)
    engine = TensorRTLLMEngine(llm)
    first, second = (engine.generate("w", max_tokens=20) for _ in range(2))
    await anext(first)
    await anext(second)
    llm.die()

    with pytest.raises(EngineFailed) as caught:
        await read(first)
    with pytest.raises(EngineFailed, match="CUDA error"):  # whom it did not tell
        await read(second)

    assert isinstance(caught.value.__cause__, CppExecutorError)
    with pytest.raises(EngineFailed, match="engine trtllm is dead"):
        await read(engine.generate("w"))
    await llm.worker.aclose()


async def test_an_error_of_one_request_is_not_the_end_of_the_engine() -> None:
    llm = LLM(max_batch_size=2)
    engine = TensorRTLLMEngine(llm)
    first, second = (engine.generate("w", max_tokens=9) for _ in range(2))
    await anext(first)
    await anext(second)
    llm.worker.active[0].answer(trtllm_stub.Response(0, [], error="no room for its adapter"))

    with pytest.raises(EngineFailed, match="no room for its adapter"):
        await read(first)

    assert len(await read(second)) == 8
    assert engine.failure is None
    await llm.worker.aclose()


async def test_one_that_it_ends_by_itself_is_no_whole_answer() -> None:
    llm = LLM()
    engine = TensorRTLLMEngine(llm)
    generation = engine.generate("w", max_tokens=20)
    await anext(generation)
    llm.handles[2].abort()

    with pytest.raises(EngineFailed, match="ended choice 0 with 'cancelled'"):
        await read(generation)


async def test_an_engine_that_was_shut_down_is_dead() -> None:
    llm = LLM()
    llm.shutdown()
    engine = TensorRTLLMEngine(llm)

    assert engine.failure is not None
    with pytest.raises(EngineFailed, match="engine trtllm is dead: TensorRT-LLM was shut down"):
        await read(engine.generate("w"))


async def test_an_error_that_it_raises_at_once_is_of_that_request() -> None:
    llm = LLM()
    llm.refusal = NotImplementedError("this model has no such input")
    engine = TensorRTLLMEngine(llm)

    with pytest.raises(EngineFailed, match="this model has no such input"):
        await read(engine.generate("w"))

    assert engine.failure is None


async def test_a_prompt_that_is_too_long_is_the_clients_mistake() -> None:
    with pytest.raises(BadPayload, match="should not exceed max_num_tokens"):
        await read(TensorRTLLMEngine(LLM()).generate("w " * 9000))


def test_what_it_could_never_serve_is_refused_before_anything_is_submitted() -> None:
    engine = TensorRTLLMEngine(LLM())

    with pytest.raises(ValueError, match="the prompt is empty"):
        engine.open(GenerationRequest())
    with pytest.raises(ValueError, match="stop with n=2 is not supported"):
        engine.open(GenerationRequest(prompt="w", n=2, stop=("x",)))
    with pytest.raises(ValueError, match="Greedy decoding"):
        engine.open(GenerationRequest(prompt="w", n=2, sampling=Sampling(temperature=0)))


# -- its start and its end -------------------------------------------------------------------------


def test_its_capabilities_are_those_of_its_arguments() -> None:
    plain = TensorRTLLMEngine(LLM(enable_chunked_prefill=False)).capabilities
    overlapping = TensorRTLLMEngine(LLM(disable_overlap_scheduler=False)).capabilities

    assert plain.cancel_prefill == "none"
    assert (overlapping.cancel_prefill, overlapping.extra_steps) == ("chunk", 3)
    assert TensorRTLLMEngine(LLM()).statistics() is None


def test_one_without_a_tokenizer_is_refused() -> None:
    llm = LLM()
    llm.tokenizer = None  # type: ignore[assignment]

    with pytest.raises(ValueError, match="engine trtllm needs a tokenizer"):
        TensorRTLLMEngine(llm)


async def test_it_refuses_until_it_is_loaded() -> None:
    engine = TensorRTLLMEngine({"model": "m"})

    with pytest.raises(RequestRefused, match="is not loaded: await its load"):
        await read(engine.generate("w"))


@pytest.mark.realtime  # it is made in a thread
async def test_what_it_made_it_shuts_down() -> None:
    engine = TensorRTLLMEngine({"model": "m", "max_batch_size": 3})
    await engine.load()
    await engine.load()
    llm: Any = engine._llm  # type: ignore[attr-defined]
    assert llm.args.max_batch_size == 3
    assert len(await read(engine.generate("w", max_tokens=2))) == 2

    await engine.aclose()
    await engine.aclose()

    assert llm.shut_down
    with pytest.raises(EngineFailed, match="is closed"):
        await read(engine.generate("w"))


async def test_what_it_was_given_it_leaves_alone() -> None:
    llm = LLM()
    engine = TensorRTLLMEngine(llm, limits=LadderLimits(stop_bound=2))
    await engine.load()
    await engine.aclose()

    assert not llm.shut_down


@pytest.mark.realtime
async def test_options_from_text_are_its_arguments() -> None:
    options = {"model": "m", "max_batch_size": "4", "args": '{"max_seq_len": 7}'}
    engine = build("trtllm", options)
    assert isinstance(engine, TensorRTLLMEngine)
    await engine.load()
    llm: Any = engine._llm  # type: ignore[attr-defined]
    assert (llm.args.max_batch_size, llm.args.max_seq_len) == (4, 7)
    await engine.aclose()

    wrong = build("trtllm", {"model": "m", "args": '{"max_sequence": 5}'})
    assert isinstance(wrong, TensorRTLLMEngine)
    with pytest.raises(ValueError, match="invalid argument: max_sequence"):
        await wrong.load()


def test_a_model_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="--engine-option model="):
        build("trtllm")
    with pytest.raises(ValueError, match="option args must be a JSON object, got '3'"):
        build("trtllm", {"args": "3", "model": "m"})


def test_a_missing_tensorrt_llm_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(MissingPackage) as caught:
        build("trtllm", {"model": "m"})

    assert str(caught.value) == (
        "engine trtllm needs the package tensorrt_llm, which is not installed: pip install "
        "tensorrt-llm, with NVIDIA's package index as an extra one"
    )
