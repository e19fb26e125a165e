"""Continuous batching: the same texts, and books that are empty when nobody reads any more."""

from __future__ import annotations

import copy
from typing import Any

import anyio
import pytest

from streamkit.engines import (
    GenerationRequest,
    Message,
    Outcome,
    Proof,
    Sampling,
    TransformersBatchEngine,
    prove_stopped,
)
from streamkit.errors import EngineFailed, UnsupportedOption

from .conftest import CACHE
from .test_conformance import registries
from .test_engine import TOKENS, by_hand, cancellation, read

EMPTY = dict.fromkeys(("handlers", "active", "waiting", "results", "held"), 0)


async def test_an_answer_is_what_generate_says_and_choices_are_told_apart(
    batch_engine: TransformersBatchEngine, model: Any, tokenizer: Any
) -> None:
    expected = by_hand(model, tokenizer, "say it", TOKENS, do_sample=False)
    generation = batch_engine.generate("say it", max_tokens=TOKENS, n=2)

    chunks = [chunk async for chunk in generation]

    for index in range(2):
        assert "".join(chunk.text for chunk in chunks if chunk.index == index) == expected
    assert [chunk.index for chunk in chunks if chunk.finish_reason == "length"] == [0, 1]
    assert (generation.usage.prompt_tokens, generation.usage.produced) == (6, 2 * TOKENS)
    assert registries(batch_engine) == EMPTY


async def test_a_text_to_stop_at_ends_it_in_the_scheduler_too(
    batch_engine: TransformersBatchEngine, model: Any, tokenizer: Any
) -> None:
    whole = by_hand(model, tokenizer, "say it", TOKENS, do_sample=False)
    stop = whole[-2:]

    generation = batch_engine.open(
        GenerationRequest(prompt="say it", max_tokens=4000, stop=(stop,))
    )
    text = await read(generation)

    assert text == whole[: whole.index(stop)]
    assert generation.cancellation is None
    assert registries(batch_engine) == EMPTY


async def test_all_choices_of_one_that_is_cancelled_leave_and_its_neighbour_stays(
    batch_engine: TransformersBatchEngine, model: Any, tokenizer: Any
) -> None:
    expected = by_hand(model, tokenizer, "stay", 60, do_sample=False)
    said: list[str] = []

    async def neighbour() -> None:
        said.append(await read(batch_engine.generate("stay", max_tokens=60)))

    generation = batch_engine.generate("leave", max_tokens=4000, n=3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(neighbour)
        await anext(generation)
        generation.cancel(cancellation("enough"))
        report = await prove_stopped(generation, batch_engine)

    assert (report.outcome, report.proof) == (Outcome.CANCELLED, Proof.OBSERVED)
    assert said == [expected]
    assert registries(batch_engine) == EMPTY


async def test_messages_go_through_the_template(batch_engine: TransformersBatchEngine) -> None:
    generation = batch_engine.open(
        GenerationRequest(messages=(Message("user", "hi"),), max_tokens=1)
    )
    await read(generation)

    assert generation.usage.prompt_tokens == len("[user] hi\n[assistant] ")


async def test_sampling_is_taken_only_where_the_model_samples(model: Any, tokenizer: Any) -> None:
    request = GenerationRequest(prompt="w", max_tokens=4, sampling=Sampling(temperature=0.001))
    plain = TransformersBatchEngine(model, tokenizer, settings=CACHE)
    await plain.load()
    with pytest.raises(UnsupportedOption, match="temperature"):
        plain.open(request)
    await plain.aclose()

    before = copy.deepcopy(model.generation_config)
    model.generation_config.update(do_sample=True, temperature=0.7)
    engine = TransformersBatchEngine(model, tokenizer, settings=CACHE)
    try:
        await engine.load()
        said = await read(engine.open(request))  # so cold that it is the likeliest
        with pytest.raises(ValueError, match="temperature must be above 0"):
            engine.open(GenerationRequest(prompt="w", sampling=Sampling(temperature=0)))
    finally:
        model.generation_config = before
        await engine.aclose()
    assert said == by_hand(model, tokenizer, "w", 4, do_sample=False)


async def test_closing_it_ends_its_thread(model: Any, tokenizer: Any) -> None:
    engine = TransformersBatchEngine(model, tokenizer, settings=CACHE)
    await engine.load()
    manager: Any = engine._batching._manager  # type: ignore[union-attr]
    generation = engine.generate("w", max_tokens=4000)
    await anext(generation)

    await engine.aclose()
    await engine.aclose()

    assert not manager.is_running()
    with pytest.raises(EngineFailed, match="is closed"):
        await read(engine.generate("w"))
