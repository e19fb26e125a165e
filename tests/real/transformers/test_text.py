"""Text whose tokens are bytes: given out in whole code points, and the same in all."""

from __future__ import annotations

import random
from typing import Any

import pytest

from streamkit.engines._transformers._text import Choice, Detokenizer

TEXTS = (
    "plain",
    "é",
    "日本語のテキスト",
    "a👩‍👩‍👧b",
    "\N{REPLACEMENT CHARACTER}",
    "mixed ü and 🎉 " * 20,
)


@pytest.fixture(scope="module")
def byte_level() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_a_code_point_comes_whole_and_nothing_is_lost(byte_level: Any, text: str) -> None:
    ids = byte_level.encode(text).ids
    choice = Choice(0, byte_level.decode, (), (), len(ids))

    chunks = [choice.add(token) for token in ids]

    assert "".join(chunk.text for chunk in chunks) == text
    assert len(chunks) == len(text.encode())  # each byte is a token
    for chunk in chunks:
        assert chunk.text in {"", *text}  # no half of one, and no two at once


def test_bytes_that_are_no_text_come_out_as_the_tokenizer_itself_has_them(byte_level: Any) -> None:
    chance = random.Random(3)
    for _ in range(200):
        ids = [chance.randrange(256) for _ in range(chance.randint(1, 100))]
        detokenizer = Detokenizer(byte_level.decode)

        text = "".join([*map(detokenizer.add, ids), detokenizer.rest()])

        assert text == byte_level.decode(ids)


def test_a_text_to_stop_at_is_found_across_the_bytes_of_a_code_point(byte_level: Any) -> None:
    ids = byte_level.encode("ab🎉cd").ids
    choice = Choice(0, byte_level.decode, ("🎉c",), (), 100)

    chunks = []
    for token in ids:
        chunks.append(choice.add(token))
        if choice.done:
            break

    assert "".join(chunk.text for chunk in chunks) == "ab"
    assert chunks[-1].finish_reason == "stop"
    assert len(chunks) == len("ab🎉c".encode())
