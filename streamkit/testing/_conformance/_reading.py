"""One reader of one generation, and the moments of it that a trial waits for."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from streamkit._core import Phase, Timer, current_loop, now
from streamkit.engines import Generation


class Reader:
    """Reads in a task of its own until the generation ends, or it is told to hold still.

    Attributes:
        generation: What it reads; None once it let go of it.
        tokens: Tokens that it got.
        text: And their text.
        largest: The most tokens that came in one piece.
        first_at: When the first came.
        ended_at: When the iterator ended, or None.
        error: What it raised, or None.
        late: Tokens that it got after :attr:`left_at`.
        left_at: When the trial left it.
    """

    def __init__(self, generation: Generation, *, pause_at: float = math.inf) -> None:
        self.generation: Generation | None = generation
        self.tokens = 0
        self.text = ""
        self.largest = 0
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self.error: Exception | None = None
        self.late = 0
        self.left_at = math.inf
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self._pause_at = pause_at
        self._marks: dict[int, anyio.Event] = {}

    def mark(self, tokens: int) -> anyio.Event:
        """An event for the moment at which it has so many tokens, or will never have."""
        return self._marks.setdefault(tokens, anyio.Event())

    async def read(self) -> None:
        """Be the task."""
        try:
            with self.scope:
                await self._read_until_pause()
        except Exception as error:  # noqa: BLE001 - looked at by the trial
            self.error = error
        finally:
            if self.tokens < self._pause_at:
                self.ended_at = now()
            for mark in self._marks.values():
                mark.set()
            self.ended.set()

    async def _read_until_pause(self) -> None:
        # Nothing else may refer to the generation here: a trial may let go of it.
        assert self.generation is not None
        async for chunk in self.generation:
            self._take(chunk.tokens, chunk.text)
            if self.tokens >= self._pause_at:
                return

    async def read_on(self) -> None:
        """Read again after a pause."""
        self._pause_at = math.inf
        await self.read()

    def _take(self, tokens: int, text: str) -> None:
        at = now()
        self.first_at = at if self.first_at is None else self.first_at
        self.late += tokens if at > self.left_at else 0
        self.tokens += tokens
        self.text += text
        self.largest = max(self.largest, tokens)
        for count, mark in self._marks.items():
            if self.tokens >= count:
                mark.set()


class PhaseTimes:
    """When a generation entered which phase: all that is left of one that was dropped."""

    def __init__(self) -> None:
        self.at: dict[Phase, float] = {}
        self._now = current_loop().now  # a cancel in another thread may tell there
        self.stopped = anyio.Event()

    def __call__(self, phase: Phase) -> None:
        self.at.setdefault(phase, self._now())
        if phase in {Phase.CANCELLED, Phase.FAILED, Phase.FINISHED}:
            self.stopped.set()


class LoopWatch:
    """How long the event loop stood still, at most, in seconds of its own clock."""

    def __init__(self, limit: float) -> None:
        self._every = limit / 5
        self._loop = current_loop()
        self._due = 0.0
        self._timer: Timer | None = None
        self.longest = 0.0

    @contextmanager
    def watching(self) -> Generator[None]:
        """Measure for the length of a block."""
        self._arm()
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._measure()

    def _arm(self) -> None:
        self._due = self._loop.now() + self._every
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        self._measure()
        self._arm()

    def _measure(self) -> None:
        self.longest = max(self.longest, self._loop.now() - self._due)
