"""Who tells when the server behind the proxy learned that its client had left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Protocol, TypeAlias

import anyio

from streamkit._core import now
from streamkit.testing._faults import Ask, Fault, Seen, visit
from streamkit.testing.chaos._watch import LOOK_EVERY, Watch

PATIENCE: Final = 8.0  # times the bound: how long one that runs on is waited for

How: TypeAlias = Literal["told", "ran on", "ended before", "never came", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """How a leave reached the server.

    Attributes:
        seen: What the client saw.
        how: ``told``; ``ran on`` beyond the bound; ``ended before`` the client left, or by itself;
            ``never came``: the proxy never passed the request on; ``failed``: no request was made.
        after: Seconds from the leave until the server knew, also where that was too late; None: it
            never did.
        phase: What the request was doing then, if the server says that.
    """

    seen: Seen
    how: How
    after: float | None = None
    phase: str = ""


class Witness(Protocol):
    """Someone who sees the server."""

    @property
    def name(self) -> str:
        """Who it is, for a report."""
        ...

    async def leave(self, ask: Ask, fault: Fault, within: float, stay: float) -> Left:
        """Make the request, leave as the fault says, and find out when the server knew."""
        ...


class Counters:
    """Any server's counters: they fall when its request has ended, if nobody else comes."""

    __slots__ = ("_watch",)

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    @property
    def name(self) -> str:
        """Who it is, for a report."""
        return "the server's counters"

    async def leave(self, ask: Ask, fault: Fault, within: float, stay: float) -> Left:
        """Make the request, leave as the fault says, and find out when the server was at rest."""
        latest = await self._watch.latest()
        base = latest.running if latest else 0.0
        seen = await visit(ask, fault, stay=partial(anyio.sleep, stay))
        if seen.left_at is None or not seen.reached:
            return Left(seen=seen, how="failed" if seen.error else "ended before")
        if not self._saw(seen, base):
            return Left(seen=seen, how="never came")
        stop = await self._watch.until_rest(base, seen.left_at, within)
        if stop is not None:
            return Left(seen=seen, how="told", after=stop.after)
        # The next one would be taken for this one.
        await self._watch.until_rest(base, seen.left_at, within * PATIENCE)
        return Left(seen=seen, how="ran on")

    async def sees(self, ask: Ask, seconds: float) -> bool:
        """Whether a client that stays for so long is seen running until its end.

        If not, a server that ran on would look like one that stopped.
        """
        latest = await self._watch.latest()
        base = latest.running if latest else 0.0
        seen = await visit(ask, Fault("fin", "queued", None, seconds))
        before = [count for count in self._watch.counts if count.at <= (seen.left_at or 0.0)]
        await self._watch.until_rest(base, seen.left_at or now(), seconds * PATIENCE)
        return not seen.complete and bool(before) and before[-1].running > base

    def _saw(self, seen: Seen, base: float) -> bool:
        until = (seen.left_at or 0.0) + LOOK_EVERY
        return any(
            count.running > base
            for count in self._watch.counts
            if seen.began_at <= count.at <= until
        )

    def __repr__(self) -> str:
        return f"<Counters {self._watch!r}>"
