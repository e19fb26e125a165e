"""A request says what it asks for beyond the plain; an engine that does not have it says so."""

import math

import pytest

from streamkit.engines import (
    Chunk,
    FakeEngine,
    GenerationRequest,
    Message,
    Sampling,
)
from streamkit.engines._outbox import Outbox
from streamkit.errors import UnsupportedOption

ASKED: list[tuple[str, GenerationRequest]] = [
    ("stop", GenerationRequest(prompt="w", stop=("end",))),
    ("frequency_penalty", GenerationRequest(prompt="w", sampling=Sampling(frequency_penalty=0.5))),
    ("presence_penalty", GenerationRequest(prompt="w", sampling=Sampling(presence_penalty=0.5))),
]


async def answer(engine: FakeEngine, request: GenerationRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.open(request)]


@pytest.mark.parametrize(("option", "request_"), ASKED)
async def test_an_engine_refuses_what_it_does_not_have(
    option: str, request_: GenerationRequest
) -> None:
    engine = FakeEngine()
    assert option not in engine.capabilities.takes

    with pytest.raises(UnsupportedOption, match=f"{option} is not supported by engine fake") as got:
        engine.open(request_)

    assert got.value.option == option
    assert isinstance(got.value, ValueError)


async def test_what_an_engine_takes_is_shown() -> None:
    shown = FakeEngine().capabilities.as_json()

    assert shown["takes"] == ["logprobs", "prompt_ids", "seed", "temperature", "top_p"]


async def test_what_is_left_to_the_engine_is_not_asked_for() -> None:
    assert GenerationRequest(prompt="w", max_tokens=3, n=2).options == frozenset()
    assert GenerationRequest(sampling=Sampling(temperature=0, seed=0)).options == {
        "temperature",
        "seed",
    }


def test_an_empty_text_stops_nothing() -> None:
    with pytest.raises(ValueError, match="stop must not hold an empty text"):
        GenerationRequest(prompt="w", stop=("a", ""))


def test_messages_are_joined_for_engines_without_a_template() -> None:
    messages = (Message("system", "Be brief."), Message("user", "Hi\nyou"))

    request = GenerationRequest(messages=messages)

    assert request.prompt == "system: Be brief.\nuser: Hi\nyou\nassistant:"
    assert request.options == frozenset()
    assert GenerationRequest(messages=messages, prompt="mine").prompt == "mine"


async def test_a_requests_seed_takes_the_place_of_the_engines() -> None:
    request = GenerationRequest(prompt="a question", sampling=Sampling(seed=7))
    plain = GenerationRequest(prompt="a question")

    assert await answer(FakeEngine(seed=1), request) == await answer(FakeEngine(seed=7), plain)


async def test_each_token_has_its_logprob_where_that_was_asked_for() -> None:
    request = GenerationRequest(prompt="w", max_tokens=9, sampling=Sampling(logprobs=3))

    chunks = await answer(FakeEngine(speculative=4), request)

    assert any(chunk.tokens > 1 for chunk in chunks)
    for chunk in chunks:
        assert "".join(each.token for each in chunk.logprobs) == chunk.text
        assert len(chunk.logprobs) == chunk.tokens
        for each in chunk.logprobs:
            assert each.logprob == pytest.approx(-math.log(128))
            assert each.top[0] == (each.token, each.logprob)
            assert len({token for token, _ in each.top}) == 3


async def test_logprobs_of_what_is_merged_stay_together() -> None:
    request = GenerationRequest(prompt="w", max_tokens=2, sampling=Sampling(logprobs=0))
    first, second = await answer(FakeEngine(), request)
    outbox = Outbox()

    outbox.put(0, first.text, 1, None, first.logprobs)
    outbox.put(0, second.text, 1, "length", second.logprobs)

    assert outbox.take().logprobs == (*first.logprobs, *second.logprobs)


async def test_token_ids_are_taken_in_the_place_of_a_text() -> None:
    engine = FakeEngine()
    generation = engine.open(GenerationRequest(prompt_ids=(5, 6, 7), max_tokens=1))

    await anext(generation)

    assert generation.usage.prompt_tokens == 3
