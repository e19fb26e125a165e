"""Engines from a command line: each mistake is named, with what would have been right."""

import pytest

from streamkit.engines import (
    FakeEngine,
    GenerationRequest,
    build,
    engine_names,
    engine_options,
)


def test_an_engine_is_built_from_text() -> None:
    engine = build(
        "fake",
        {
            "slots": "16",
            "step_ms": "2.5",
            "prefill_tokens_per_step": "64",
            "kv_tokens": "4096",
            "max_tokens": "7",
            "seed": "-3",
            "lie": "ignore_abort",
            "max_queued": "0",
            "speculative": "3",
            "kill": "TRUE",
        },
    )

    assert isinstance(engine, FakeEngine)
    books = engine.statistics()
    assert books.slots == 16
    assert engine.capabilities.kill


async def test_options_from_text_mean_what_they_mean_in_code() -> None:
    options = {"seed": "5", "max_tokens": "9", "speculative": "2"}

    from_text = [chunk async for chunk in build("fake", options).open(request())]
    from_code = [
        chunk async for chunk in FakeEngine(seed=5, max_tokens=9, speculative=2).open(request())
    ]

    assert from_text == from_code


def request() -> GenerationRequest:
    return GenerationRequest(prompt="w")


def test_without_options_it_is_the_default() -> None:
    assert {"fake", "upstream", "vllm"} <= set(engine_names())
    assert list(engine_names()) == sorted(engine_names())
    assert build("fake").name == "fake"


def test_an_unknown_engine_is_refused_with_those_that_there_are() -> None:
    known = f"known: {', '.join(engine_names())}$"
    with pytest.raises(ValueError, match=f"unknown engine 'vlllm'; {known}"):
        build("vlllm")
    with pytest.raises(ValueError, match=f"unknown engine ''; {known}"):
        engine_options("")


def test_an_unknown_option_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        ValueError,
        match="engine fake has no option 'slot'; its options: kill, kv_tokens, lie, max_queued",
    ):
        build("fake", {"slot": "3"})


@pytest.mark.parametrize(
    ("option", "bad", "expected"),
    [
        *[("slots", bad, "a whole number from 1 to 100000") for bad in ("0", "-1", "1.5", "x", "")],
        ("slots", "100001", "a whole number from 1 to 100000"),
        *[
            ("step_ms", bad, "a number from 0.01 to 60000")
            for bad in ("0", "-20", "nan", "inf", "1e9", "fast", "1" * 400)
        ],
        ("prefill_tokens_per_step", "0", "a whole number from 1 to 1048576"),
        ("kv_tokens", "0", "a whole number from 1 to"),
        ("kv_tokens", "none", "a whole number from 1 to"),
        ("max_tokens", "-5", "a whole number from 1 to 1048576"),
        ("max_tokens", "1" * 5000, "a whole number from 1 to 1048576"),
        ("seed", "lucky", "a whole number from"),
        ("lie", "white", "one of ignore_abort"),
        ("max_queued", "-1", "a whole number from 0 to 1000000"),
        ("speculative", "0", "a whole number from 1 to 64"),
        ("kill", "maybe", "true or false"),
    ],
)
def test_a_bad_value_is_refused_with_what_was_expected(
    option: str, bad: str, expected: str
) -> None:
    with pytest.raises(ValueError, match=f"option {option} must be {expected}") as refused:
        build("fake", {option: bad})

    message = str(refused.value)
    assert message.startswith("engine fake: ")
    assert f"got {bad!r}"[:60] in message
    assert len(message) < 400
    assert "its options: kill, kv_tokens" in message


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        ("slots", 0),
        ("slots", "8"),
        ("slots", 8.0),
        ("slots", True),
        ("slots", None),
        ("step_ms", float("nan")),
        ("step_ms", "20"),
        ("step_ms", False),
        ("kill", 1),
        ("lie", 3),
    ],
)
def test_the_constructor_checks_the_same_ranges(option: str, bad: object) -> None:
    with pytest.raises(ValueError, match=f"option {option} must be .*, got {bad!r}"):
        FakeEngine(**{option: bad})  # type: ignore[arg-type]


def test_options_can_be_shown_with_their_defaults() -> None:
    options = {option.name: option for option in engine_options("fake")}

    assert list(options)[:3] == ["slots", "step_ms", "prefill_tokens_per_step"]
    assert {name: option.default for name, option in options.items()} == {
        "slots": 8,
        "step_ms": 20.0,
        "prefill_tokens_per_step": 512,
        "kv_tokens": None,
        "max_tokens": 128,
        "seed": 0,
        "lie": None,
        "max_queued": 4096,
        "speculative": 1,
        "kill": False,
    }
    assert all(option.help and option.kind.expected for option in options.values())
