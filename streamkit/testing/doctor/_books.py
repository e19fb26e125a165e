"""A streamkit server's own books as the witness: they know each request, and when it was left."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Self

import anyio

from streamkit._core import now
from streamkit.testing._faults import Ask, Fault, Seen, visit
from streamkit.testing.chaos._target import CannotTest, Target, parse_json
from streamkit.testing.chaos._watch import LOOK_EVERY

from ._witness import PATIENCE, How, Left

_NEVER_CAME: Final = 0.5  # seconds after which a request that nobody knows will not come any more
_LOOKS_AT_ITS_CLOCK: Final = 20
_LISTED: Final = 50  # requests that are looked through for one whose id was changed on the way
_NONSENSE: Final = (ValueError, LookupError, TypeError, OverflowError)
_EARLY: Final = 0.05  # seconds before it was sent that a request may seem to have come
_ENDED: Final = frozenset({"finished", "cancelled", "failed", "quarantined"})
_FOR_ITS_CLIENT: Final = frozenset({"client_disconnect", "write_stalled"})


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
        """Raises one of ``_NONSENSE`` for what is no entry."""
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
        asked_at = now()
        page = await self._target.get(f"/v1/requests?limit={_LISTED}")
        try:
            listed = [Entry.parse(each) for each in parse_json(page)["requests"]]
        except _NONSENSE:
            raise CannotTest("/v1/requests shows no books") from None
        for entry in listed:
            self._compare(asked_at, entry)
        return listed

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
        except (CannotTest, *_NONSENSE):
            return None
        self._compare(asked_at, found)
        return found

    async def calibrate(self, ask: Ask) -> None:
        """Find out what its clock shows, while a request is in flight that lasts for a moment.

        If none is seen, a request counts as come when it was sent.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit, ask, "stay")
            for _ in range(_LOOKS_AT_ITS_CLOCK):
                with suppress(CannotTest):
                    await self.recent()
            tasks.cancel_scope.cancel()

    async def leave(self, ask: Ask, fault: Fault, within: float, stay: float) -> Left:
        """Make the request, leave as the fault says, and find out when the server knew."""
        ask, name = self.named(ask)
        seen = await visit(ask, fault, stay=partial(anyio.sleep, stay))
        if seen.left_at is None or not seen.reached:
            return Left(seen=seen, how="failed" if seen.error else "ended before")
        sent_at = seen.sent_at or seen.began_at
        until = seen.left_at + within * PATIENCE
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
        """Learn from the age of one that is in flight what its clock showed just now."""
        if entry.phase in _ENDED:
            return
        its = entry.arrived_at + entry.age
        low, high = its - now(), its - asked_at
        if self._offset is None or high - low < self._offset[1] - self._offset[0]:
            self._offset = (low, high)

    async def _nearest(self, sent_at: float) -> str:
        """The id of what came to the server when that was sent; "unknown": nothing did."""
        listed = await self.recent() if self._offset is not None else []
        late = {each.id: self._arrival(each, sent_at) - sent_at for each in listed}
        came = {name: after for name, after in late.items() if -_EARLY < after < _NEVER_CAME}
        return min(came, key=lambda name: came[name], default="unknown")

    def __repr__(self) -> str:
        return f"<Books of {self._target!r}>"
