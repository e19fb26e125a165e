"""``generate()`` on a thread: answers, a prefill that is left layer by layer, random cancels."""

from __future__ import annotations

import random
import time
from statistics import median
from typing import Any, Self

import anyio
import pytest

from examples.transformers.tiny import CONTEXT, LAYERS
from streamkit._core import Cancellation, Reason, now
from streamkit.engines import (
    Chunk,
    Generation,
    GenerationRequest,
    Message,
    Outcome,
    Proof,
    Sampling,
    TransformersEngine,
    prove_stopped,
)
from streamkit.errors import BadPayload, EngineFailed

CANCELS = 120
TOKENS = 20
LONG = "w" * 4000  # a token is a letter
SLOWER, SLACK = 3.0, 0.1  # a canary behind a cancel, in ones on an idle engine; and seconds more


async def read(generation: Generation) -> str:
    return "".join([chunk.text async for chunk in generation])


def cancellation(detail: str) -> Cancellation:
    return Cancellation(reason=Reason.REQUESTED, at=now(), detail=detail)


def by_hand(model: Any, tokenizer: Any, prompt: str, tokens: int, **options: Any) -> str:
    rows = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**rows, max_new_tokens=tokens, **options)
    return tokenizer.decode(output[0, rows["input_ids"].shape[1] :], skip_special_tokens=True)


def hooks_in(model: Any) -> int:
    return sum(len(layer._forward_pre_hooks) for layer in model.model.layers)


class LayerCount:
    """Counts the layers that are begun, and cancels a generation in one of them."""

    def __init__(self, model: Any) -> None:
        self.layers = model.model.layers
        self.begun = 0
        self.at = -1
        self.victim: Generation | None = None
        self._why = cancellation("in a layer")

    def __enter__(self) -> Self:
        self._forwards = [layer.forward for layer in self.layers]
        for layer, forward in zip(self.layers, self._forwards, strict=True):
            layer.forward = self._counting(forward)
        return self

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            del layer.forward

    def _counting(self, forward: Any) -> Any:
        def count(*args: Any, **keywords: Any) -> Any:
            self.begun += 1
            if self.begun == self.at and self.victim is not None:
                self.victim.cancel(self._why)
            return forward(*args, **keywords)

        return count


@pytest.mark.parametrize("layer", [1, 4, LAYERS - 2])
async def test_a_cancelled_prefill_of_4000_tokens_stops_within_two_layers(
    engine: TransformersEngine, model: Any, tokenizer: Any, layer: int
) -> None:
    with LayerCount(model) as count:
        count.at = layer
        count.victim = generation = engine.generate(LONG, max_tokens=5)
        assert await read(generation) == ""
        report = await prove_stopped(generation, engine)

    assert count.begun <= layer + 1
    assert (report.outcome, report.proof) == (Outcome.CANCELLED, Proof.JOINED)
    assert report.tokens_made == 0
    assert hooks_in(model) == 0
    said = await read(engine.generate("say it", max_tokens=TOKENS))
    assert said == by_hand(model, tokenizer, "say it", TOKENS, do_sample=False)


async def test_two_slots_share_a_model_and_a_cancel_meets_one_of_them(
    model: Any, tokenizer: Any
) -> None:
    engine = TransformersEngine(model, tokenizer, slots=2)
    expected = by_hand(model, tokenizer, LONG, 3, do_sample=False)
    said: list[str] = []

    async def neighbour() -> None:
        said.append(await read(engine.generate(LONG, max_tokens=3)))

    with LayerCount(model) as count:
        count.at = LAYERS // 2
        count.victim = generation = engine.generate(LONG, max_tokens=3)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, generation)
            tasks.start_soon(neighbour)

    assert said == [expected]
    assert (await prove_stopped(generation, engine)).proof is Proof.JOINED
    assert generation.usage.produced == 0
    assert hooks_in(model) == 0
    await engine.aclose()


async def test_hooks_are_in_the_layers_only_while_there_is_a_prefill(
    engine: TransformersEngine, model: Any
) -> None:
    generation = engine.generate("w", max_tokens=200)
    await anext(generation)

    assert hooks_in(model) == 0
    await generation.aclose()
    await prove_stopped(generation, engine)


async def canary(engine: TransformersEngine) -> float:
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
        generation.cancel(cancellation("at random"))


async def test_cancels_at_random_moments_leave_an_idle_engine(
    engine: TransformersEngine, model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(1)
    idle = [await canary(engine) for _ in range(20)]
    after: list[float] = []
    stopped: list[float] = []
    for number in range(CANCELS):
        n = 1 + number % 2
        early = chance.random() < 0.5
        turns, tokens = (chance.randrange(40), 0) if early else (0, chance.randint(1, n * TOKENS))
        generation = engine.generate("leave me", max_tokens=10 * TOKENS, n=n)
        await leave(generation, turns, tokens)
        after.append(await canary(engine))
        if generation.cancellation is None:
            continue  # that was the last token
        report = await prove_stopped(generation, engine)
        assert (report.outcome, report.proof) == (Outcome.CANCELLED, Proof.JOINED)
        assert report.error is None
        assert (report.tokens_after_cancel or 0) <= n
        stopped.append(report.stopped_after or 0.0)

    with capsys.disabled():
        print(
            f"\n{CANCELS} cancels: canary {1e3 * median(after):.1f} ms behind them, "
            f"{1e3 * median(idle):.1f} ms on an idle engine; stopped after "
            f"{1e3 * median(stopped):.1f} ms, {1e3 * max(stopped):.1f} ms at most"
        )
    books = engine.statistics()
    assert books is not None
    assert (books.running, books.queued, books.misbehaviours) == (0, 0, {})
    assert hooks_in(model) == 0
    assert median(after) <= SLOWER * median(idle) + SLACK
    said = await read(engine.generate("say it", max_tokens=TOKENS))
    assert said == by_hand(model, tokenizer, "say it", TOKENS, do_sample=False)


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.0}])
async def test_a_seed_gives_what_generate_itself_gives(
    model: Any, tokenizer: Any, options: dict[str, float]
) -> None:
    import torch  # noqa: PLC0415

    torch.manual_seed(5)
    expected = by_hand(model, tokenizer, "say it", TOKENS, do_sample=True, **options)
    engine = TransformersEngine(model, tokenizer, slots=3)
    request = GenerationRequest(
        prompt="say it", max_tokens=TOKENS, sampling=Sampling(seed=5, **options)
    )
    said: list[str] = []

    async def ask() -> None:
        said.append(await read(engine.open(request)))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):  # side by side: none may draw from another's numbers
            tasks.start_soon(ask)

    assert said == [expected] * 3
    await engine.aclose()


async def test_choices_are_told_apart_and_each_ends(engine: TransformersEngine) -> None:
    sampling = Sampling(temperature=2.0, seed=1)
    request = GenerationRequest(prompt="w", n=3, max_tokens=TOKENS, sampling=sampling)

    chunks = [chunk async for chunk in engine.open(request)]

    texts = ["".join(c.text for c in chunks if c.index == index) for index in range(3)]
    assert len(set(texts)) == 3
    assert [c.index for c in chunks if c.finish_reason == "length"] == [0, 1, 2]
    assert sum(chunk.tokens for chunk in chunks) == 3 * TOKENS


async def test_a_text_to_stop_at_ends_a_choice_and_is_no_part_of_it(
    engine: TransformersEngine,
) -> None:
    sampling = Sampling(temperature=2.0, seed=1)
    whole: list[Chunk] = [
        chunk
        async for chunk in engine.open(
            GenerationRequest(prompt="w", n=2, max_tokens=TOKENS, sampling=sampling)
        )
    ]
    texts = ["".join(c.text for c in whole if c.index == index) for index in range(2)]
    stop = texts[0][5:7]
    assert stop not in texts[1]
    request = GenerationRequest(
        prompt="w", n=2, max_tokens=TOKENS, sampling=sampling, stop=(stop, "no such text")
    )

    generation = engine.open(request)
    chunks = [chunk async for chunk in generation]

    said = ["".join(c.text for c in chunks if c.index == index) for index in range(2)]
    assert said == [texts[0][: texts[0].index(stop)], texts[1]]
    assert {(c.index, c.finish_reason) for c in chunks if c.finish_reason} == {
        (0, "stop"),
        (1, "length"),
    }
    assert generation.usage.prompt_tokens == 1


async def test_messages_go_through_the_template_and_token_ids_go_as_they_are(
    engine: TransformersEngine, tokenizer: Any
) -> None:
    asked = engine.open(GenerationRequest(messages=(Message("user", "hi"),), max_tokens=3))
    text = await read(asked)

    ids = tokenizer("[user] hi\n[assistant] ")["input_ids"]
    same = engine.open(GenerationRequest(prompt_ids=tuple(ids), max_tokens=3))
    assert await read(same) == text
    assert asked.usage.prompt_tokens == same.usage.prompt_tokens == len(ids)


async def test_log_probabilities_come_with_each_token(engine: TransformersEngine) -> None:
    sampling = Sampling(temperature=0, logprobs=2)
    request = GenerationRequest(prompt="w", max_tokens=3, sampling=sampling)

    chunks = [chunk async for chunk in engine.open(request)]

    tokens = [token for chunk in chunks for token in chunk.logprobs]
    assert len(tokens) == 3  # two of them may come in one chunk
    assert "".join(token.token for token in tokens) == "".join(chunk.text for chunk in chunks)
    for token in tokens:
        assert token.top[0] == (token.token, token.logprob)  # the likeliest was taken
        assert 0 > token.top[0][1] > token.top[1][1]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (GenerationRequest(), "the prompt is empty"),
        (GenerationRequest(prompt="x", sampling=Sampling(temperature=-1)), "temperature"),
        (GenerationRequest(prompt="x", sampling=Sampling(top_p=7)), "top_p"),
        (GenerationRequest(prompt="x", sampling=Sampling(logprobs=99)), "logprobs"),
        (GenerationRequest(prompt="x", sampling=Sampling(presence_penalty=1)), "presence_penalty"),
    ],
)
async def test_what_it_could_never_serve_is_refused_at_once(
    engine: TransformersEngine, request_: GenerationRequest, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        engine.open(request_)


async def test_a_prompt_without_room_for_an_answer_is_the_clients_mistake(
    engine: TransformersEngine,
) -> None:
    with pytest.raises(BadPayload, match=f"the model's context holds {CONTEXT}"):
        await read(engine.generate("x" * CONTEXT))


async def test_a_step_that_fails_fails_its_request_and_no_other(
    engine: TransformersEngine, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(model.model.layers[3], "forward", step)
        with pytest.raises(EngineFailed, match="out of memory"):
            await read(engine.generate("w", max_tokens=3))

    assert hooks_in(model) == 0
    said = await read(engine.generate("say it", max_tokens=TOKENS))
    assert said == by_hand(model, tokenizer, "say it", TOKENS, do_sample=False)


async def test_a_model_is_loaded_by_its_name_and_let_go_again(
    folder: Any, model: Any, tokenizer: Any
) -> None:
    engine = TransformersEngine({"model": folder, "dtype": "float32"})
    assert engine.statistics() is None
    await engine.load()
    await engine.load()

    said = await read(engine.generate("say it", max_tokens=3))

    assert said == by_hand(model, tokenizer, "say it", 3, do_sample=False)
    await engine.aclose()
    assert engine.statistics() is None
