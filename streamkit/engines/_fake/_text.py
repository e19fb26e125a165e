"""What the fake engine says: words from a list, in an order that seed, prompt and choice decide."""

from __future__ import annotations

import math
import re
import zlib
from typing import Final

from streamkit.engines._base import TokenLogprob

_LIST: Final = (
    "a about above across after again all almost along also always among an and another any as ask "
    "at away back be because before begin behind below between big both bring but by call can "
    "change close come could cut day deep do down draw each early earth end enough even every eye "
    "face fall far fast few field find first fly follow for form found from full get give go good "
    "great grow hand hard have hear help here high hold home hour how if in into it its keep kind "
    "know land large last late lead learn leave left less let letter life light like line list "
    "little live long look low made make many may mean might mile more most mountain move much "
    "must my"
)
WORDS: Final = tuple(_LIST.split())
"""128 of them: a power of two, so that seven bits of a random number are one word."""

_BITS: Final = len(WORDS) - 1


_LOGPROB: Final = -math.log(len(WORDS))
_TOKEN: Final = re.compile(r" ?[^ ]+")


def likelihood(text: str, most: int) -> tuple[TokenLogprob, ...]:
    """How likely each word of it was, and ``most`` words in its place: all are equally likely."""
    tokens: list[TokenLogprob] = []
    for token in _TOKEN.findall(text):
        said = token.lstrip()
        space = token[: -len(said)]
        others = [word for word in WORDS[: most + 1] if word != said]
        top = [token, *(space + word for word in others)][:most]
        tokens.append(TokenLogprob(token, _LOGPROB, tuple((word, _LOGPROB) for word in top)))
    return tuple(tokens)


def count_words(prompt: str) -> int:
    """One word is one token."""
    return len(prompt.split())


class Speaker:
    """Says the words of one sequence, and how many of them a speculative step gets right."""

    __slots__ = ("_random", "_said")

    def __init__(self, seed: int, prompt: str, index: int) -> None:
        # Of what the request is, not of when it came: the same question has the same answer,
        # whoever else is served. crc32, because hash() differs from process to process.
        self._random = zlib.crc32(f"{seed}/{index}/{prompt}".encode(errors="surrogatepass"))
        self._said = False

    def say(self, tokens: int) -> str:
        """The next words; joined, all that was said has single spaces between words."""
        text = WORDS[self._next() & _BITS]
        for _ in range(tokens - 1):
            text += f" {WORDS[self._next() & _BITS]}"
        if self._said:
            return f" {text}"
        self._said = True
        return text

    def guess(self, most: int) -> int:
        """How many tokens a speculative step makes: 1 to ``most``."""
        return 1 + self._next() % most

    def _next(self) -> int:
        # A linear congruential generator; its low bits have short periods, hence the high ones.
        self._random = (self._random * 1103515245 + 12345) & 0x7FFFFFFF
        return self._random >> 16

    def __repr__(self) -> str:
        return f"<Speaker {self._random:#x}>"
