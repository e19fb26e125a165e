"""Stop strings, for engines that have none: a choice ends where one is, and the engine with it."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Final, Self

from streamkit._core import Cancellation, Reason, now

from ._base import Chunk, Generation, TokenLogprob

FOUND: Final = "a stop string was found"


class StopStrings:
    """The chunks of a generation, each of its choices cut where the first of these texts begins.

    A text may begin in one chunk and end in another: from the chunk in which one could have begun,
    they are held back. When every choice has ended, and one of them here, the engine is told to
    abort at once, before the last chunk is handed on. An engine that makes several choices has one
    abort for all, so that what it makes of one that has ended is dropped until the others have.

    Args:
        generation: Its chunks.
        stop: The texts, none of them empty.
        choices: How many it makes.

    Attributes:
        cut: Whether the engine was told to abort because nothing is left to wait for.
        dropped: Tokens of choices that had ended.
    """

    __slots__ = (
        "_generation",
        "_held",
        "_next",
        "_open",
        "_runs_on",
        "_stops",
        "cut",
        "dropped",
    )

    def __init__(self, generation: Generation, stop: tuple[str, ...], choices: int) -> None:
        self._generation = generation
        self._next = generation.__anext__
        self._stops = StopTexts(stop)
        self._held: dict[int, list[Chunk]] = {}
        self._open = set(range(choices))
        self._runs_on = False  # the engine goes on with a choice that has ended
        self.cut: bool = False
        self.dropped: int = 0

    @property
    def cancellation(self) -> Cancellation | None:
        """What cut the generation short, unless it was a stop string."""
        return None if self.cut else self._generation.cancellation

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while not self.cut:
            try:
                chunk = await self._next()
            except StopAsyncIteration:  # an engine may end a choice without a word on how
                if self._held and self.cancellation is None:
                    return merged(self._held.popitem()[1])
                raise
            if (piece := self._take(chunk)) is not None:
                return piece
        raise StopAsyncIteration

    def _take(self, chunk: Chunk) -> Chunk | None:
        index = chunk.index
        if index not in self._open:
            self.dropped += chunk.tokens
            return None
        held = [*self._held.pop(index, ()), chunk]
        text = "".join(each.text for each in held)
        if (cut := self._stops.find(text)) is not None:
            self._end(index, runs_on=chunk.finish_reason is None)
            return replace(_ended_at(merged(held), cut), finish_reason="stop")
        if chunk.finish_reason is not None:
            self._end(index, runs_on=False)
            return merged(held)
        free = self._stops.free(held, text)
        if free < len(held):
            self._held[index] = held[free:]
        return merged(held[:free]) if free else None

    def _end(self, index: int, *, runs_on: bool) -> None:
        self._open.discard(index)
        if runs_on:
            self._runs_on = True
        if not self._open and self._runs_on:
            self.cut = True
            self._generation.cancel(Cancellation(reason=Reason.REQUESTED, at=now(), detail=FOUND))

    def __repr__(self) -> str:
        return f"<StopStrings {self._stops.texts} on {self._generation!r}>"


class StopTexts:
    """Texts to stop at, and where they are in what has come so far.

    Attributes:
        texts: None of them empty.
    """

    __slots__ = ("_starts", "texts")

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts
        # One look for all of them: most chunks end in none.
        self._starts = tuple({text[:end] for text in texts for end in range(1, len(text))})

    def find(self, text: str) -> int | None:
        """Where the text that is complete first begins: the same wherever chunks begin and end."""
        ends = [(at + len(stop), at) for stop in self.texts if (at := text.find(stop)) >= 0]
        return min(ends)[1] if ends else None

    def free(self, held: list[Chunk], text: str) -> int:
        """How many of the chunks that make ``text`` end before a text to stop at may begin."""
        if not text.endswith(self._starts):
            return len(held)
        begins = len(text) - max(len(start) for start in self._starts if text.endswith(start))
        free = end = 0
        while (end := end + len(held[free].text)) <= begins:
            free += 1
        return free


def cut_at(chunks: Generator[Chunk], stop: tuple[str, ...]) -> Generator[Chunk]:
    """Yield the chunks of one choice up to where one of these texts begins, and close them there.

    For engines that are pulled in a thread, and compute nothing that is not pulled.
    """
    stops = StopTexts(stop)
    held: list[Chunk] = []
    with closing(chunks):
        for chunk in chunks:
            held.append(chunk)
            text = "".join(each.text for each in held)
            if (cut := stops.find(text)) is not None:
                yield replace(_ended_at(merged(held), cut), finish_reason="stop")
                return
            free = len(held) if chunk.finish_reason else stops.free(held, text)
            if free:
                yield merged(held[:free])
                del held[:free]


def merged(chunks: list[Chunk]) -> Chunk:
    """Chunks of one choice, in order, as one."""
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(
        "".join(chunk.text for chunk in chunks),
        sum(chunk.tokens for chunk in chunks),
        chunks[-1].index,
        chunks[-1].finish_reason,
        tuple(logprob for chunk in chunks for logprob in chunk.logprobs),
    )


def _ended_at(chunk: Chunk, cut: int) -> Chunk:
    """All of its tokens count: they were made. Told are those that begin before the cut."""
    logprobs = tuple(_beginning_before(cut, chunk.logprobs))
    return replace(chunk, text=chunk.text[:cut], logprobs=logprobs)


def _beginning_before(cut: int, logprobs: Iterable[TokenLogprob]) -> Iterable[TokenLogprob]:
    at = 0
    for logprob in logprobs:
        if at >= cut:
            return
        yield logprob
        at += len(logprob.token)
