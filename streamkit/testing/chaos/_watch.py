"""Looks at a server's counters all the time, so that what happened can be read off afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from streamkit._core import now

from ._target import CannotTest, Count, Target

LOOK_EVERY: Final = 0.02  # seconds, if a look takes no longer
LOOK_SHARE: Final = 0.25  # than this part of it: looking must not be what is measured
SURE_AFTER: Final = 0.15  # seconds for which it must be idle: a request may still be on its way in
_MOST: Final = 100_000  # looks that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """How a server came to rest.

    Attributes:
        after: Seconds until the first look that found it at rest; LOOK_EVERY is the resolution.
        tokens: Made meanwhile, at the most; None: it does not say.
    """

    after: float
    tokens: float | None


class Watch:
    """All looks at one server.

    Attributes:
        counts: What they found, in order.
        failed: How many found nothing.
    """

    __slots__ = ("_news", "_target", "counts", "failed")

    def __init__(self, target: Target) -> None:
        self.counts: deque[Count] = deque(maxlen=_MOST)
        self.failed: int = 0
        self._target = target
        self._news = anyio.Event()

    @asynccontextmanager
    async def looking(self) -> AsyncGenerator[None]:
        """Look while the block runs."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            yield
            tasks.cancel_scope.cancel()

    async def _run(self) -> None:
        while True:
            began_at = now()
            try:
                self.counts.append(await self._target.count())
            except CannotTest:
                self.failed += 1
            self._news.set()
            self._news = anyio.Event()
            took = now() - began_at
            await anyio.sleep_until(began_at + max(LOOK_EVERY, took / LOOK_SHARE))

    async def latest(self) -> Count | None:
        """A look that is asked for after now; None: it found nothing."""
        asked_at, failed = now(), self.failed
        while not (self.counts and self.counts[-1].asked_at >= asked_at):
            if self.failed > failed:
                return None
            await self._news.wait()
        return self.counts[-1]

    async def until_rest(self, base: float, since: float, within: float) -> Stop | None:
        """Return when no more runs than ``base``; None: that did not come within the seconds.

        Cancellation:
            Stops waiting.
        """
        while True:
            stop = rest(self.counts, base, since)
            if stop is not None and stop.after > within:
                return None
            if stop is not None and now() >= since + stop.after + SURE_AFTER:
                return stop
            if now() > since + within + SURE_AFTER:
                return None
            await self._news.wait()

    def made(self, since: float) -> float | None:
        """Tokens that were made after an instant, up to the last look; None: it does not say."""
        before = [count for count in self.counts if count.asked_at < since]
        return _made(before[-1], self.counts[-1]) if before else None

    def grown(self) -> dict[str, float]:
        """What must not grow and did, between the first look and the last."""
        if not self.counts:
            return {}
        first, last = self.counts[0].wrong, self.counts[-1].wrong
        more = {name: value - first.get(name, 0) for name, value in last.items()}
        return {name: value for name, value in more.items() if value > 0}

    def __repr__(self) -> str:
        return f"<Watch {len(self.counts)} looks, {self.failed} failed>"


def rest(counts: Iterable[Count], base: float, since: float) -> Stop | None:
    """How a server came to rest after an instant, as far as these looks show; None: it did not."""
    before: Count | None = None
    idle: Count | None = None
    for count in counts:
        if count.asked_at < since:
            before = count
        elif count.running > base:
            idle = None
        elif idle is None:
            idle = count
    if idle is None:
        return None
    tokens = None if before is None else _made(before, idle)
    return Stop(after=max(0.0, idle.at - since), tokens=tokens)


def _made(before: Count, after: Count) -> float | None:
    if before.tokens is None or after.tokens is None:
        return None
    return after.tokens - before.tokens
