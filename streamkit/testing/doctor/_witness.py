"""Who tells when the server behind the proxy learned that its client had left."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal, Protocol, Self, TypeAlias

import anyio

from streamkit._core import now
from streamkit.testing._faults import Ask, Fault, Seen, visit
from streamkit.testing.chaos._target import CannotTest, Target, parse_json
from streamkit.testing.chaos._watch import LOOK_EVERY, Watch

_NEVER_CAME: Final = 0.5  # seconds after which a request that nobody knows will not come any more
_PATIENCE: Final = 8.0  # times the bound: how long one that runs on is waited for
_LOOKS_AT_ITS_CLOCK: Final = 20
_LISTED: Final = 50  # requests that are looked through for one whose id was changed on the way
_ENDED: Final = frozenset({"finished", "cancelled", "failed", "quarantined"})
_FOR_ITS_CLIENT: Final = frozenset({"client_disconnect", "write_stalled"})

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the books say of one request; seconds, instants on the server's clock."""

    id: str
    phase: str
    reason: str
    cancelled_in: str
    arrived_at: float
    age: float
    detected_after: float
    prompt_tokens: int

    @classmethod
    def parse(cls, said: Any) -> Self:
        """Raises LookupError, TypeError or ValueError for what is no entry."""
        return cls(
            id=str(said["id"]),
            phase=str(said["phase"]),
            reason=str(said["reason"] or ""),
            cancelled_in=str(said["cancelled_in"] or ""),
            arrived_at=float(said["arrived_at"]),
            age=float(said["age"]),
            detected_after=float(said["detected_after"] or 0.0),
            prompt_tokens=int(said["prompt_tokens"] or 0),
        )


class Witness(Protocol):
    """Someone who sees the server."""

    @property
    def name(self) -> str:
        """Who it is, for a report."""
        ...

    async def leave(self, ask: Ask, fault: Fault, within: float, stay: float) -> Left:
        """Make the request, leave as the fault says, and find out when the server knew."""
        ...


class Books:
    """A streamkit server's own books: exact, for one request, whatever else it does."""

    __slots__ = ("_offset", "_prefix", "_taken", "_target", "renamed")

    def __init__(self, target: Target) -> None:
        self._target = target
        self._prefix = f"doctor-{secrets.token_hex(4)}"
        self._taken = 0
        self._offset: tuple[float, float] | None = None  # its clock is ours plus this
        self.renamed: bool = False  # the proxy gives requests ids of its own

    @property
    def name(self) -> str:
        """Who it is, for a report."""
        return "the server's books (/v1/requests)"

    @classmethod
    async def find(cls, target: Target) -> Books | None:
        """The books of a server, if it has any and shows them."""
        books = cls(target)
        try:
            await books.recent()
        except CannotTest:
            return None
        return books

    async def recent(self) -> list[Entry]:
        """What runs, and what ended lately.

        Raises:
            CannotTest: It shows no books.
        """
        page = await self._target.get(f"/v1/requests?limit={_LISTED}")
        try:
            return [Entry.parse(each) for each in parse_json(page)["requests"]]
        except (ValueError, LookupError, TypeError):
            raise CannotTest("/v1/requests shows no books") from None

    def named(self, ask: Ask) -> tuple[Ask, str]:
        """The same request with an id that is found again."""
        self._taken += 1
        name = f"{self._prefix}-{self._taken}"
        return replace(ask, headers={**ask.headers, "x-request-id": name}), name

    async def entry(self, name: str, sent_at: float) -> Entry | None:
        """What they say of a request; None: they do not know it."""
        try:
            if self.renamed:
                name = await self._nearest(sent_at)
            asked_at = now()
            found = Entry.parse(parse_json(await self._target.get(f"/v1/requests/{name}")))
        except (CannotTest, ValueError, LookupError, TypeError):
            return None
        if found.phase not in _ENDED:
            self._compare(asked_at, found)
        return found

    async def calibrate(self, ask: Ask) -> None:
        """Find out what its clock shows, from a request that lasts for a moment.

        Raises:
            CannotTest: The request did not come to the server.
        """
        ask, name = self.named(ask)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit, ask, "stay")
            for _ in range(_LOOKS_AT_ITS_CLOCK):
                await self.entry(name, now())
            tasks.cancel_scope.cancel()

    async def leave(self, ask: Ask, fault: Fault, within: float, stay: float) -> Left:
        """Make the request, leave as the fault says, and find out when the server knew."""
        ask, name = self.named(ask)
        seen = await visit(ask, fault, stay=partial(anyio.sleep, stay))
        if seen.left_at is None or not seen.reached:
            return Left(seen=seen, how="failed" if seen.error else "ended before")
        sent_at = seen.sent_at or seen.began_at
        until = seen.left_at + within * _PATIENCE
        while True:
            entry = await self.entry(name, sent_at)
            if entry is None and now() > seen.left_at + _NEVER_CAME:
                return Left(seen=seen, how="never came")
            if entry and entry.phase in _ENDED:
                return self._judged(entry, seen, within)
            if now() > until:
                return Left(seen=seen, how="ran on")
            await anyio.sleep(LOOK_EVERY)

    def _judged(self, entry: Entry, seen: Seen, within: float) -> Left:
        left_at = seen.left_at or 0.0
        came_at = self._arrival(entry, seen.sent_at or seen.began_at)
        if entry.reason in _FOR_ITS_CLIENT:
            after = max(0.0, came_at + entry.detected_after - left_at)
            how: How = "told" if after <= within else "ran on"
            return Left(seen=seen, how=how, after=after, phase=entry.cancelled_in)
        if entry.phase == "failed":
            return Left(seen=seen, how="failed")
        ran_for = came_at + entry.age - left_at
        return Left(seen=seen, how="ran on" if ran_for > within else "ended before")

    def _arrival(self, entry: Entry, sent_at: float) -> float:
        """When the request came to the server, on our clock."""
        if self._offset is None:
            return sent_at
        return entry.arrived_at - sum(self._offset) / 2

    def _compare(self, asked_at: float, entry: Entry) -> None:
        its = entry.arrived_at + entry.age
        low, high = its - now(), its - asked_at
        if self._offset is None or high - low < self._offset[1] - self._offset[0]:
            self._offset = (low, high)

    async def _nearest(self, sent_at: float) -> str:
        listed = await self.recent()
        if self._offset is None or not listed:
            return "unknown"
        nearest = min(listed, key=lambda each: abs(self._arrival(each, sent_at) - sent_at))
        return nearest.id

    def __repr__(self) -> str:
        return f"<Books of {self._target!r}>"


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
        await self._watch.until_rest(base, seen.left_at, within * _PATIENCE)
        return Left(seen=seen, how="ran on")

    async def sees(self, ask: Ask, seconds: float) -> bool:
        """Whether a client that stays for so long is seen running until its end.

        If not, a server that ran on would look like one that stopped.
        """
        latest = await self._watch.latest()
        base = latest.running if latest else 0.0
        seen = await visit(ask, Fault("fin", "queued", None, seconds))
        before = [count for count in self._watch.counts if count.at <= (seen.left_at or 0.0)]
        await self._watch.until_rest(base, seen.left_at or now(), seconds * _PATIENCE)
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
