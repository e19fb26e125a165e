"""From tokens to text, choice by choice: whole code points only, and up to a text to stop at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from streamkit.engines._base import Chunk, TokenLogprob

Decode = Callable[[Sequence[int]], str]

BROKEN: Final = "\N{REPLACEMENT CHARACTER}"
INCOMPLETE: Final = (
    3  # of a code point's bytes, at most; a decoder makes one BROKEN of all, or each
)
WINDOW: Final = 32  # tokens that are decoded again with each new one
KEPT: Final = 4  # of them, before those that come: what a token says can depend on its neighbours


class Detokenizer:
    """Gives out the text of tokens one by one, and together what the tokenizer makes of all.

    A token alone may be no text: a part of a code point, or a word whose space depends on the token
    before. So the last tokens are decoded together, and what is new is given out.
    """

    __slots__ = ("_decode", "_said", "_window")

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._said = 0  # characters of the window's text that were given out

    def add(self, token: int) -> str:
        """Return what is certain now: no code point of which bytes are still to come."""
        self._window.append(token)
        text = self._decode(self._window)
        certain = len(text) - _incomplete(text)
        new = text[self._said : certain]
        self._said = max(self._said, certain)
        if len(self._window) >= WINDOW:
            self._window = self._window[-KEPT:]
            self._said = max(0, len(self._decode(self._window)) - (len(text) - self._said))
        return new

    def rest(self) -> str:
        """Return what was held back: bytes that are the beginning of nothing."""
        text = self._decode(self._window)
        new, self._said = text[self._said :], len(text)
        return new


def _incomplete(text: str) -> int:
    broken = len(text) - len(text.rstrip(BROKEN))
    return min(broken, INCOMPLETE)


class StopTexts:
    """Holds back what may be the beginning of a text to stop at.

    Attributes:
        found: Whether one came; nothing is given out from then on.
    """

    __slots__ = ("_held", "_texts", "found")

    def __init__(self, texts: Collection[str]) -> None:
        self._texts: Collection[str] = texts
        self._held: str = ""
        self.found = False

    def add(self, text: str) -> str:
        """Return what is certain not to be part of one."""
        if not self._texts or self.found:
            return "" if self.found else text
        text = self._held + text
        places = [place for stop in self._texts if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max(_overlap(text, stop) for stop in self._texts)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """Return what was held back: no text to stop at will come of it."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the beginning of ``stop``."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)


class Choice:
    """One of the answers to a request, while it is made.

    Args:
        index: Which of them.
        decode: The tokenizer's.
        stops: Texts that end it.
        ends: Tokens that end it; they are counted, and have no text.
        limit: Tokens of it, at most.

    Attributes:
        done: Whether it has ended; what is made for it from then on is not its own.
        tokens: How many it has.
    """

    __slots__ = ("_ends", "_index", "_limit", "_stops", "_text", "done", "tokens")

    def __init__(
        self, index: int, decode: Decode, stops: Collection[str], ends: Collection[int], limit: int
    ) -> None:
        self._index = index
        self._text = Detokenizer(decode)
        self._stops = StopTexts(stops)
        self._ends = ends
        self._limit = limit
        self.done = False
        self.tokens = 0

    def add(self, token: int, logprobs: tuple[TokenLogprob, ...] = ()) -> Chunk:
        """Return the chunk that a token makes; its text may be empty."""
        self.tokens += 1
        if token in self._ends:
            return self._end("stop", "", logprobs)
        text = self._stops.add(self._text.add(token))
        if self._stops.found:
            return self._end("stop", text, logprobs)
        if self.tokens >= self._limit:
            return self._end("length", text, logprobs)
        return Chunk(text, 1, self._index, None, logprobs)

    def finish(self) -> Chunk:
        """Return its last chunk: the engine has come to its end by a rule of its own."""
        return self._end("stop", "", (), tokens=0)

    def _end(
        self, reason: str, text: str, logprobs: tuple[TokenLogprob, ...], tokens: int = 1
    ) -> Chunk:
        self.done = True
        if not self._stops.found:
            text += self._stops.add(self._text.rest()) + self._stops.rest()
        # What was held back can complete a text to stop at: bytes that came to be text only now.
        reason = "stop" if self._stops.found else reason
        return Chunk(text, tokens, self._index, reason, logprobs)

    def __repr__(self) -> str:
        return f"<Choice {self._index}: {self.tokens} tokens{', done' if self.done else ''}>"
