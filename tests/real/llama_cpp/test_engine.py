"""The adapter on the real llama.cpp: the package's own answers, and cancels at random moments."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import pytest

from streamkit._core import Cancellation, Reason, now
from streamkit.engines import (
    Chunk,
    Generation,
    GenerationRequest,
    LlamaCppEngine,
    Message,
    Outcome,
    Proof,
    Sampling,
    build,
    prove_stopped,
)
from streamkit.errors import BadPayload, EngineFailed, RequestRefused

from . import tiny
from .conftest import ARGS

CANCELS = 150
TOKENS = 40
LONG = "w" * 7_000
SAMPLED = Sampling(temperature=0.9, top_p=0.9, seed=3, frequency_penalty=0.2, presence_penalty=0.1)
GREEDY = Sampling(temperature=0)


async def read(generation: Generation) -> str:
    return "".join([chunk.text async for chunk in generation])


def ask(prompt: str = "say it", **options: Any) -> GenerationRequest:
    return GenerationRequest(**{"prompt": prompt, "max_tokens": TOKENS, **options})


def why() -> Cancellation:
    return Cancellation(reason=Reason.REQUESTED, at=now(), detail="a test leaves")


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
async def test_an_answer_is_what_the_package_itself_says(
    engine: LlamaCppEngine, llm: Any, sampling: Sampling
) -> None:
    names = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")
    asked = {name: getattr(sampling, name) for name in names}
    theirs = llm.create_completion(
        "say it",
        max_tokens=TOKENS,
        **{name: value for name, value in asked.items() if value is not None},
    )

    generation = engine.open(ask(sampling=sampling))

    assert await read(generation) == theirs["choices"][0]["text"]
    assert generation.usage.prompt_tokens == theirs["usage"]["prompt_tokens"]
    assert generation.usage.produced == theirs["usage"]["completion_tokens"] == TOKENS


async def test_the_same_context_answers_the_next_request_as_well(engine: LlamaCppEngine) -> None:
    texts = [await read(engine.open(ask(sampling=SAMPLED))) for _ in range(3)]

    assert texts == texts[:1] * 3


async def test_messages_go_through_the_models_template(engine: LlamaCppEngine, llm: Any) -> None:
    theirs = llm.create_chat_completion(
        [{"role": "user", "content": "hi"}], max_tokens=TOKENS, seed=3, temperature=0.9
    )
    sampling = Sampling(seed=3, temperature=0.9)

    generation = engine.open(ask("", messages=(Message("user", "hi"),), sampling=sampling))

    assert "messages" in engine.capabilities.takes
    assert await read(generation) == theirs["choices"][0]["message"]["content"]
    assert generation.usage.prompt_tokens == theirs["usage"]["prompt_tokens"]
    assert generation.usage.prompt_tokens == len("[user] hi\n[assistant] ")


async def test_a_model_without_a_template_gets_them_as_a_prompt(tmp_path: Path) -> None:
    engine = LlamaCppEngine(
        {"model_path": str(tiny.build(tmp_path / "plain.gguf", template=False)), **ARGS}
    )
    await engine.load()
    request = GenerationRequest(messages=(Message("user", "hi"),), max_tokens=1)
    generation = engine.open(request)
    await read(generation)
    await engine.aclose()

    assert "messages" not in engine.capabilities.takes
    assert generation.usage.prompt_tokens == 1 + len("user: hi\nassistant:")


async def test_token_ids_are_a_prompt(engine: LlamaCppEngine) -> None:
    text = await read(engine.open(ask("hello", sampling=GREEDY)))
    ids = (1, *(3 + byte for byte in b"hello"))

    generation = engine.open(ask("", prompt_ids=ids, sampling=GREEDY))

    assert await read(generation) == text
    assert generation.usage.prompt_tokens == len(ids)


async def test_choices_come_one_after_another_and_differ(engine: LlamaCppEngine) -> None:
    chunks = [chunk async for chunk in engine.open(ask(n=3, sampling=SAMPLED))]

    order = [chunk.index for chunk in chunks]
    assert order == sorted(order)
    texts = [text_of(chunks, index) for index in range(3)]
    assert texts[0] == await read(engine.open(ask(sampling=SAMPLED)))
    assert len(set(texts)) == 3
    ends = [chunk.finish_reason for chunk in chunks if chunk.finish_reason]
    assert ends == ["length"] * 3


def text_of(chunks: list[Chunk], index: int) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


async def test_a_text_to_stop_at_ends_it_and_is_no_part_of_it(
    engine: LlamaCppEngine, llm: Any
) -> None:
    whole = await read(engine.open(ask(sampling=SAMPLED)))
    stop = whole[10:13]
    before = engine.statistics().tokens

    chunks = [chunk async for chunk in engine.open(ask(sampling=SAMPLED, stop=(stop, "\0")))]

    assert text_of(chunks, 0) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"
    assert engine.statistics().tokens - before == whole.index(stop) + len(stop)
    for length in (1, 2):
        theirs = llm.create_completion(
            "say it", max_tokens=TOKENS, seed=3, stop=[stop[:length]], temperature=0.9
        )
        sampling = Sampling(seed=3, temperature=0.9)
        ours = await read(engine.open(ask(sampling=sampling, stop=(stop[:length],))))
        assert ours == theirs["choices"][0]["text"]


async def test_log_probabilities_are_those_of_the_package(engine: LlamaCppEngine, llm: Any) -> None:
    theirs = llm.create_completion("say it", max_tokens=5, temperature=0, logprobs=3)
    said = theirs["choices"][0]["logprobs"]

    request = ask(max_tokens=5, sampling=Sampling(temperature=0, logprobs=3))
    chunks = [chunk async for chunk in engine.open(request)]

    tokens = [token for chunk in chunks for token in chunk.logprobs]
    assert [token.token for token in tokens] == said["tokens"]
    assert [token.logprob for token in tokens] == pytest.approx(said["token_logprobs"], abs=1e-4)
    for token, top in zip(tokens, said["top_logprobs"], strict=True):
        assert [text for text, _ in token.top] == list(top)[:3]


async def test_only_whole_characters_come_out(tmp_path: Path) -> None:
    path = tiny.build(tmp_path / "wide.gguf", wide=True)
    engine = LlamaCppEngine({"model_path": str(path), **ARGS})
    await engine.load()
    sampling = Sampling(seed=5, temperature=1.5, top_p=1.0)
    request = ask(max_tokens=400, sampling=sampling)
    with anyio.fail_after(30):  # the package's own stream spins here for ever
        generation = engine.open(request)
        chunks = [chunk async for chunk in generation]
    text = text_of(chunks, 0)
    await engine.aclose()

    assert generation.usage.produced == 400
    assert "\ufffd" not in text
    assert any(ord(character) > 127 for character in text)


# -- leaving ---------------------------------------------------------------------------------------


async def test_a_cancel_inside_a_prefill_of_seconds_stops_it_within_100_ms(
    slow_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = LlamaCppEngine({"model_path": str(slow_model), **ARGS})
    await engine.load()
    began = now()
    whole = await read(engine.open(ask(LONG, max_tokens=3, sampling=GREEDY)))
    prefill = now() - began
    stopped: list[float] = []
    for part in (0.1, 0.2, 0.3, 0.4):  # the whole one may have been the slower one
        generation = engine.open(ask(f"{part} {LONG}"))  # else a part of it is there already
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, generation)
            await anyio.sleep(part * prefill)
            generation.cancel(why())
            report = await prove_stopped(generation, engine)
        assert (report.outcome, report.proof) == (Outcome.CANCELLED, Proof.JOINED)
        assert report.tokens_made == 0
        stopped.append(report.stopped_after or 0.0)
    again = await read(engine.open(ask(LONG, max_tokens=3, sampling=GREEDY)))
    await engine.aclose()

    with capsys.disabled():
        print(
            f"\nprefill of {prefill:.1f} s: thread left after {1e3 * median(stopped):.0f} ms, "
            f"{1e3 * max(stopped):.0f} ms at most"
        )
    assert prefill > 2
    assert median(stopped) < 0.1
    assert again == whole


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
        generation.cancel(why())


async def test_after_cancels_at_random_moments_the_context_says_what_it_said(
    engine: LlamaCppEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(1)
    text = await read(engine.open(ask(sampling=SAMPLED)))
    stopped: list[float] = []
    for number in range(CANCELS):
        early = chance.random() < 0.5
        turns, tokens = (chance.randrange(40), 0) if early else (0, chance.randint(1, TOKENS))
        prompt = chance.choice(("leave me", "leave me here", "w" * 400))
        generation = engine.open(ask(prompt, n=1 + number % 2, max_tokens=4_000))
        await leave(generation, turns, tokens)
        assert await read(engine.open(ask(sampling=SAMPLED))) == text
        report = await prove_stopped(generation, engine)
        assert (report.outcome, report.proof) == (Outcome.CANCELLED, Proof.JOINED)
        assert report.error is None
        stopped.append(report.stopped_after or 0.0)

    with capsys.disabled():
        print(
            f"\n{CANCELS} cancels: thread left after {1e3 * median(stopped):.2f} ms, "
            f"{1e3 * max(stopped):.1f} ms at most"
        )
    books = engine.statistics()
    assert (books.running, books.queued, books.quarantined) == (0, 0, 0)
    assert not books.misbehaviours


async def test_one_context_is_one_slot_and_the_others_wait(engine: LlamaCppEngine) -> None:
    first = engine.open(ask(max_tokens=8_000))
    await anext(first)
    second = engine.open(ask(max_tokens=1, sampling=GREEDY))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, second)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        books = engine.statistics()
        first.cancel(why())

    assert (books.slots, books.running, books.queued) == (1, 1, 1)
    assert second.usage.produced == 1


async def test_a_held_generation_computes_nothing_more(engine: LlamaCppEngine) -> None:
    generation = engine.open(ask(max_tokens=8_000))
    await anext(generation)
    while True:
        made = engine.statistics().tokens
        await anyio.sleep(0.1)  # a thousand of its steps
        if made == engine.statistics().tokens:
            break

    assert made < 100
    await generation.aclose()


async def test_closing_the_engine_ends_what_runs(engine: LlamaCppEngine) -> None:
    generation = engine.open(ask(max_tokens=8_000))
    await anext(generation)

    await engine.aclose()

    assert generation.cancellation is not None
    with pytest.raises(EngineFailed, match="closed"):
        await read(engine.open(ask()))


# -- what is refused, and what breaks --------------------------------------------------------------


async def test_a_prompt_that_is_too_long_is_the_clients_mistake(engine: LlamaCppEngine) -> None:
    with pytest.raises(BadPayload, match=r"16385 tokens; a context of 16384 .* takes 16383"):
        await read(engine.open(ask("x" * 16_384)))

    assert await read(engine.open(ask(max_tokens=1))) != ""


async def test_an_answer_ends_where_the_context_does(engine: LlamaCppEngine) -> None:
    generation = engine.open(ask("x" * 16_373, max_tokens=100))
    chunks = [chunk async for chunk in generation]

    assert chunks[-1].finish_reason == "length"
    assert generation.usage.produced == 16_384 - 16_374


@pytest.mark.parametrize("token", [-1, 260])
async def test_a_token_that_the_model_does_not_have_is_refused(
    engine: LlamaCppEngine, token: int
) -> None:
    with pytest.raises(ValueError, match=f"prompt_ids must be from 0 to 259, got {token}"):
        engine.open(ask("", prompt_ids=(1, token)))


async def test_an_abort_of_somebody_else_is_a_failure(model: Path) -> None:
    import llama_cpp  # noqa: PLC0415

    llm = llama_cpp.Llama(str(model), verbose=False, **ARGS)
    engine = LlamaCppEngine(llm)
    text = await read(engine.open(ask(sampling=GREEDY)))
    always = llama_cpp.ggml_abort_callback(lambda _: True)
    llama_cpp.llama_set_abort_callback(llm.ctx, always, None)
    with pytest.raises(EngineFailed) as failed:
        await read(engine.open(ask("else")))
    await engine.aclose()
    after = LlamaCppEngine(llm)

    assert "llama_decode returned 2" in str(failed.value.__cause__ or failed.value)
    assert await read(after.open(ask(sampling=GREEDY))) == text
    await after.aclose()
    llm.close()


async def test_a_llama_of_the_callers_stays_open(model: Path) -> None:
    from llama_cpp import Llama  # noqa: PLC0415

    llm = Llama(str(model), verbose=False, **ARGS)
    engine = LlamaCppEngine(llm)
    generation = engine.open(ask(max_tokens=8_000))
    await anext(generation)
    await engine.aclose()
    del engine, generation
    gc.collect()  # what llama.cpp would still call of ours would be gone now

    assert llm.create_completion("hi", max_tokens=3)["usage"]["completion_tokens"] == 3
    llm.close()


async def test_until_it_is_loaded_it_refuses(model: Path) -> None:
    engine = build("llama_cpp", {"model": str(model), "n_ctx": "512", "seed": "7"})
    with pytest.raises(RequestRefused, match="not loaded"):
        await read(engine.open(ask()))
    await engine.load()  # type: ignore[attr-defined]
    await engine.load()  # type: ignore[attr-defined]

    assert await read(engine.open(ask(max_tokens=2))) != ""
    await engine.aclose()


async def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "no.gguf")
    with pytest.raises(ValueError, match=r"there is no file .*no\.gguf"):
        build("llama_cpp", {"model": path})
    with pytest.raises(ValueError, match=r"no\.gguf"):
        await LlamaCppEngine({"model_path": path}).load()
