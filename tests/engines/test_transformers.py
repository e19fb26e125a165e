"""The adapters for transformers without it: options, refusals, texts; tests/real has the rest."""

from __future__ import annotations

import pytest

from streamkit.engines import (
    GenerationRequest,
    TransformersBatchEngine,
    TransformersEngine,
    build,
    known_engine,
)
from streamkit.engines._transformers._text import Choice, StopTexts
from streamkit.errors import MissingPackage, RequestRefused

ARGS = {"model": "m"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())


@pytest.mark.usefixtures("installed")
def test_batching_is_one_of_two_engines() -> None:
    assert isinstance(build("transformers", {"model": "m"}), TransformersEngine)
    continuous = build(
        "transformers",
        {"model": "m", "batching": "continuous", "slots": "3", "batch_args": '{"num_blocks": 9}'},
    )
    assert isinstance(continuous, TransformersBatchEngine)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--engine-option model="),
        ({"model": "m", "batching": "both"}, "batching must be thread or continuous, got 'both'"),
        ({"model": "m", "args": "3"}, "option args must be a JSON object, got '3'"),
        ({"model": "m", "batch_args": "{}"}, "for --engine-option batching=continuous"),
        ({"model": "m", "slots": "0"}, "option slots must be a whole number from 1"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_a_wrong_option_is_refused_with_what_is_right(options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build("transformers", options)


@pytest.mark.parametrize("missing", ["transformers", "torch"])
def test_a_missing_package_is_one_line_that_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else 1)

    with pytest.raises(MissingPackage) as caught:
        build("transformers", {"model": "m"})

    assert str(caught.value) == (
        f"engine transformers needs the package {missing}, which is not installed: "
        "pip install transformers torch"
    )


@pytest.mark.parametrize("kind", [TransformersEngine, TransformersBatchEngine])
async def test_it_refuses_until_it_is_loaded(
    kind: type[TransformersEngine | TransformersBatchEngine],
) -> None:
    engine = kind(ARGS)

    with pytest.raises(RequestRefused, match="is not loaded: await its load"):
        await anext(engine.generate("w"))

    assert engine.statistics() is None
    await engine.aclose()


def test_a_model_without_its_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="needs its tokenizer"):
        TransformersEngine(object())


def test_an_empty_prompt_is_refused_before_anything_is_submitted() -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        TransformersEngine(ARGS).open(GenerationRequest())


def test_what_it_cannot_is_said_before_it_is_made() -> None:
    known = known_engine("transformers")

    assert known.capabilities.cancel_prefill == "layer"
    assert "prefill on a GPU" in known.cannot


# -- texts -----------------------------------------------------------------------------------------


def letters(tokens: object) -> str:
    return "".join(map(chr, tokens))  # type: ignore[call-overload]


def give_out(text: str, *stops: str) -> list[str]:
    texts = StopTexts(stops)
    return [*[texts.add(letter) for letter in text], texts.rest()]


@pytest.mark.parametrize(
    ("text", "stops", "given"),
    [
        ("abcd", (), ["a", "b", "c", "d", ""]),
        ("abcd", ("bc",), ["a", "", "", "", ""]),
        ("abxd", ("bc",), ["a", "", "bx", "d", ""]),
        ("aab", ("ab", "b"), ["", "a", "", ""]),
        ("abb", ("bc",), ["a", "", "b", "b"]),
    ],
)
def test_only_what_may_begin_a_text_to_stop_at_is_held_back(
    text: str, stops: tuple[str, ...], given: list[str]
) -> None:
    assert give_out(text, *stops) == given


def test_the_earliest_text_to_stop_at_ends_it() -> None:
    texts = StopTexts(("later", "now"))

    assert texts.add("well, now or later") == "well, "
    assert texts.found
    assert texts.add("more") == ""


@pytest.mark.parametrize(
    ("tokens", "stops", "text", "reason"),
    [
        ("abc", (), "abc", "length"),
        ("ab\n", (), "ab", "stop"),
        ("abc", ("b",), "a", "stop"),
        ("abc", ("cd",), "abc", "length"),
        ("abc", ("bc",), "a", "stop"),
    ],
)
def test_a_choice_ends_at_its_limit_its_last_token_or_a_text(
    tokens: str, stops: tuple[str, ...], text: str, reason: str
) -> None:
    choice = Choice(2, letters, stops, {ord("\n")}, limit=3)
    chunks = []
    for token in map(ord, tokens):
        assert not choice.done
        chunks.append(choice.add(token))
        if choice.done:
            break

    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + [reason]
    assert {(chunk.index, chunk.tokens) for chunk in chunks} == {(2, 1)}


def test_what_a_choice_held_back_comes_at_the_end_of_the_engine() -> None:
    choice = Choice(0, letters, ("bc",), (), limit=9)
    choice.add(ord("b"))

    chunk = choice.finish()

    assert (chunk.text, chunk.tokens, chunk.finish_reason) == ("b", 0, "stop")
