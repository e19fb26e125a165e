"""A choice ends where a stop string begins, wherever the engine's chunks begin and end."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Self

import pytest

from streamkit._core import Cancellation
from streamkit.engines import Chunk, FakeEngine, GenerationRequest, Sampling, prove_stopped
from streamkit.engines._stop import StopStrings


class Said:
    """A generation that says what it was given, chunk by chunk, unless it is cancelled."""

    def __init__(self, *chunks: Chunk) -> None:
        self.left = list(chunks)
        self.cancellation: Cancellation | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self.cancellation is not None or not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)

    def cancel(self, cancellation: Cancellation) -> bool:
        self.cancellation = cancellation
        return True


async def read(said: Said, *stop: str, choices: int = 1) -> tuple[list[Chunk], StopStrings]:
    reader = StopStrings(said, stop, choices)
    return [chunk async for chunk in reader], reader


def cuts(text: str) -> Iterator[list[str]]:
    """Every way to cut it into pieces."""
    borders = range(1, len(text))
    for count in range(len(text)):
        for chosen in combinations(borders, count):
            edges = [0, *chosen, len(text)]
            yield [text[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize(
    ("text", "stop", "left"),
    [
        ("one two", ["x"], "one two"),
        ("one two", [" t"], "one"),
        ("one two", ["one"], ""),
        ("one two", ["two"], "one "),
        ("aabaab!", ["aab!"], "aab"),  # what looked like it, and was not, comes all the same
        ("xabcy", ["abc", "b"], "xa"),  # the one that is complete first
        ("xabcy", ["abc", "bc"], "x"),  # complete together: the one that begins first
        ("ends ab", ["abc"], "ends ab"),
        ("ééé\n\n", ["\n\n"], "ééé"),
    ],
)
async def test_where_chunks_begin_and_end_changes_nothing(
    text: str, stop: list[str], left: str
) -> None:
    for pieces in cuts(text):
        last = len(pieces) - 1
        said = Said(
            *(Chunk(p, 1, 0, "length" if at == last else None) for at, p in enumerate(pieces))
        )

        chunks, reader = await read(said, *stop)

        assert "".join(chunk.text for chunk in chunks) == left, pieces
        ended = "length" if left == text else "stop"
        assert [c.finish_reason for c in chunks] == [None] * (len(chunks) - 1) + [ended], pieces
        assert reader.cut is (said.cancellation is not None), pieces
        read_pieces = last + 1 - len(said.left)
        assert sum(chunk.tokens for chunk in chunks) == read_pieces, pieces


async def test_a_text_that_cannot_be_the_start_of_one_is_not_held_back() -> None:
    said = Said(Chunk("a"), Chunk("b"), Chunk("x"), Chunk("c"))
    reader = StopStrings(said, ("xyz",), 1)

    assert [(await anext(reader)).text for _ in range(3)] == ["a", "b", "xc"]


async def test_the_engine_is_told_before_the_last_chunk_is_handed_on() -> None:
    said = Said(Chunk("a"), Chunk("b"), Chunk("c"))
    reader = StopStrings(said, ("b",), 1)
    await anext(reader)
    assert said.cancellation is None

    last = await anext(reader)

    assert (last.text, last.finish_reason, last.tokens) == ("", "stop", 1)
    assert said.cancellation is not None
    assert reader.cancellation is None  # that is no cut: the answer is whole


async def test_a_choice_that_ended_in_the_same_chunk_is_not_aborted() -> None:
    said = Said(Chunk("a b", 2, 0, "length"))

    [chunk], reader = await read(said, "b")

    assert (chunk.text, chunk.finish_reason) == ("a ", "stop")
    assert (said.cancellation, reader.cut) == (None, False)


async def test_the_engine_is_told_when_the_last_of_several_choices_has_ended() -> None:
    said = Said(
        Chunk("a", 1, 0), Chunk("!", 1, 1), Chunk("b", 1, 1), Chunk("!", 1, 0), Chunk("c", 1, 0)
    )

    chunks, reader = await read(said, "!", choices=2)

    assert [(c.text, c.index, c.finish_reason) for c in chunks] == [
        ("a", 0, None),
        ("", 1, "stop"),
        ("", 0, "stop"),
    ]
    assert (reader.cut, reader.dropped) == (True, 1)


async def test_what_is_held_back_comes_when_the_engine_ends_without_a_word() -> None:
    chunks, _ = await read(Said(Chunk("a"), Chunk("b")), "bc")

    assert [chunk.text for chunk in chunks] == ["a", "b"]


async def test_what_is_held_back_does_not_come_after_a_cancel() -> None:
    said = Said(Chunk("a"), Chunk("b"), Chunk("c"))
    reader = StopStrings(said, ("bx",), 1)
    await anext(reader)
    said.cancel(cause := Cancellation(reason="drain", at=0.0))

    assert [chunk async for chunk in reader] == []
    assert reader.cancellation is cause


async def test_logprobs_are_those_of_tokens_that_begin_before_it() -> None:
    request = GenerationRequest(prompt="a b c", max_tokens=9, sampling=Sampling(logprobs=0))
    engine = FakeEngine()
    generation = engine.open(request)
    reader = StopStrings(generation, ("ow h",), 1)  # high low hard

    chunks = [chunk async for chunk in reader]
    await prove_stopped(generation, engine)

    assert "".join(chunk.text for chunk in chunks) == "high l"
    told = [each for chunk in chunks for each in chunk.logprobs]
    assert [each.token for each in told] == ["high", " low"]
