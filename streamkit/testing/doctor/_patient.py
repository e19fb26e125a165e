"""The server as the doctor sees it: through its proxy, directly if that is known, and a witness."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from streamkit.testing._faults import Ask, Fault
from streamkit.testing.chaos._target import CannotTest, Target, parse_json
from streamkit.testing.chaos._watch import Watch

from ._books import Books
from ._endpoint import check_streams
from ._hear import Heard, hear
from ._witness import Counters, Left, Witness

SHORT: Final = 16  # tokens
_LONGER: Final = 64
_SLACK: Final = 0.5  # seconds that an answer lasts beyond what a leave needs
_FASTEST: Final = 1e-4  # seconds for a token: below, what is measured is the network
_LEAST_SILENCE: Final = 0.05  # seconds that more words of a prompt must cost to be counted on
_MORE_WORDS: Final = (50, 2_000)
_MOST_WORDS: Final = 2_000  # of a prompt whose only use is that it takes long; money elsewhere
_MOST_WORDS_FAKE: Final = 100_000  # 200 kB; below every proxy's limit for a body


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is tried, and what is good enough; seconds where nothing else is said.

    Attributes:
        late: Until a leave, or a token, may arrive without being called late.
        within: Until a leave must arrive.
        idle: Of silence that has to be survived; 0: not tried.
        stream: That a stream lasts whose pace is looked at.
        repeat: Times that each thing is tried.
        tokens: Of an answer, at most.
    """

    late: float
    within: float
    idle: float
    stream: float
    repeat: int
    tokens: int


class Patient:
    """What the checks work with.

    Attributes:
        through: The server as its clients reach it.
        direct: The same without the proxy; None: not known.
        witness: Who sees when it learns of a leave; None: nobody.
        blind: Why nobody does.
        limits: How much is tried.
        sample: A first, short answer through the proxy.
    """

    def __init__(self, through: Target, direct: Target | None, limits: Limits) -> None:
        self.through: Target = through
        self.direct: Target | None = direct
        self.limits: Limits = limits
        self.witness: Witness | None = None
        self.blind: str = "it has no counters that are known here; --backend may have"
        self.sample: Heard
        self._each = 0.0  # seconds for a token
        self._first = 0.0  # seconds to the first one
        self._word: float | None = None  # seconds for a word of a prompt
        self._fake = False

    @asynccontextmanager
    async def opened(self, model: str | None) -> AsyncGenerator[None]:
        """Find out all that the checks need to know; a witness watches while the block runs.

        Raises:
            CannotTest: It does not answer, or does not stream; the message says what to do.
        """
        near = self.direct or self.through
        await near.choose(model)
        self.through.model = near.model
        self.sample = await hear(self.through.ask(0, SHORT))
        check_streams(self.through, self.sample)
        if self.direct is not None:
            check_streams(self.direct, await hear(self.direct.ask(0, SHORT)))
        await self._take_pulse(near)
        books = await Books.find(near)
        if books is not None:
            await books.calibrate(near.ask(0, self.tokens_for(0.5)))
            self._fake = await _is_fake(near)
            self.witness = books
            yield
            return
        watch = await self._watch(near)
        if watch is None:
            yield
            return
        async with watch.looking():
            counters = Counters(watch)
            if await counters.sees(near.ask(0, self.outlasting), self.limits.within):
                self.witness = counters
            else:
                self.blind = (
                    f"its counters did not show a client that stayed for {self.limits.within:g} s; "
                    "lower --stop-within, or raise --max-tokens"
                )
            yield

    async def _watch(self, near: Target) -> Watch | None:
        """Its counters; None: they are not to be had, and ``blind`` says why."""
        if not near.counts:
            return None
        try:
            await near.count()
        except CannotTest as error:
            self.blind = f"{error}; --backend may tell"
            return None
        return Watch(near)

    async def _take_pulse(self, target: Target) -> None:
        """How long a token takes: two answers, for a proxy may hold all of one back."""
        short = await hear(target.ask(0, SHORT))
        longer = await hear(target.ask(0, _LONGER))
        self._each = max(_FASTEST, (longer.seconds - short.seconds) / (_LONGER - SHORT))
        self._first = max(0.0, short.seconds - SHORT * self._each)

    def tokens_for(self, seconds: float) -> int:
        """Tokens of an answer that lasts so long, as far as that is allowed."""
        return max(SHORT, min(self.limits.tokens, math.ceil(seconds / self._each)))

    @property
    def lasts(self) -> float:
        """Seconds that an answer can last, at most."""
        return self._first + self.limits.tokens * self._each

    @property
    def outlasting(self) -> int:
        """Tokens of an answer in which a leave that comes too late is seen to."""
        return self.tokens_for(2 * self.limits.within + _SLACK)

    @property
    def streaming_after(self) -> float:
        """Seconds from a request until its answer certainly streams."""
        return self._first + max(0.1, 5 * self._each)

    async def leave(self, ask: Ask, way: str, after: float, *, stay: float = 0.0) -> Left:
        """One client that leaves so long after its request, and goes on reading for ``stay``."""
        assert self.witness is not None
        fault = Fault(way, "queued", None, after)
        return await self.witness.leave(ask, fault, self.limits.within, stay)

    async def silent(self, seconds: float, tokens: int = 1) -> tuple[Ask, float] | None:
        """A request that streams nothing for about so long, and for how long; None: there is none.

        A long prompt keeps a server silent. How long for each word is tried first, and no prompt
        is made longer than it may cost.
        """
        word = await self._cost_of_a_word()
        if word is None:
            return None
        most = _MOST_WORDS_FAKE if self._fake else _MOST_WORDS
        words = min(most, math.ceil(seconds / word))
        return self.through.ask("w " * words, tokens), words * word

    async def _cost_of_a_word(self) -> float | None:
        target = self.direct or self.through
        if self._word is None:
            self._word = 0.0
            base = await hear(target.ask("w " * SHORT, 1))
            for words in _MORE_WORDS:
                heard = await hear(target.ask("w " * (SHORT + words), 1))
                more = (heard.first_event_after or 0.0) - (base.first_event_after or 0.0)
                if not heard.answered:
                    break
                if more >= _LEAST_SILENCE:
                    self._word = more / words
                    break
        return self._word or None

    def __repr__(self) -> str:
        return f"<Patient {self.through.url}>"


async def _is_fake(target: Target) -> bool:
    """Whether a long prompt costs nothing there."""
    try:
        said: Any = parse_json(await target.get("/v1/engine"))
        return cast("dict[str, object]", said).get("name") == "fake"
    except (CannotTest, ValueError, AttributeError):
        return False
