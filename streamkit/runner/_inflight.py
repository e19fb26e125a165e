"""Which requests are in flight, and which have ended lately: found, listed and cancelled by id."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from typing import Final, Protocol

import anyio

from streamkit._core import Reason

from ._account import Account

REMEMBERED: Final = 1000  # ended requests; about 2 KB each
VALID_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""Ids that clients may choose: safe in a path, a header, a log line and a metric."""


class CancelOutcome(StrEnum):
    """What an explicit cancel found; the values are the words on the wire."""

    CANCELLED = "cancelled"  # this call cut it short
    ALREADY_FINISHED = "already_finished"  # it had ended, or been cut short, before


class InFlightCall(Protocol):
    """What the table keeps."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    def account(self) -> Account:
        """Its books, now."""
        ...

    def cancel(self, reason: Reason, detail: str) -> bool:
        """Cut it short; False when it had ended or been cancelled."""
        ...


class InFlight:
    """The table; an entry goes from the one half to the other when its books are closed.

    An id is unique among the requests in flight. One whose engine was given up stays taken until
    the engine proves that it stopped, because the engine still knows it by that id.

    Attributes:
        remembered: Ended requests that it keeps.
    """

    __slots__ = ("_calls", "_ended", "_idle", "remembered")

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._calls: dict[str, InFlightCall] = {}
        # Oldest first. A plain dict is slow to give out its first entry again and again: it walks
        # over the places of all those that were taken before.
        self._ended: OrderedDict[str, Account] = OrderedDict()
        self.remembered: int = remembered
        self._idle: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[InFlightCall]:
        return iter(list(self._calls.values()))

    def choose_id(self, proposed: str | None = None) -> str:
        """Return ``proposed`` if it is a valid id that is free, else a new one."""
        if proposed is None or not VALID_ID.fullmatch(proposed) or self._is_taken(proposed):
            return os.urandom(16).hex()
        return proposed

    def add(self, call: InFlightCall) -> None:
        """A request arrived; its id must be free."""
        assert call.id not in self._calls
        self._calls[call.id] = call

    def drop(self, call: InFlightCall) -> None:
        """It was refused: it leaves no trace here."""
        del self._calls[call.id]
        self._tell_idle()

    def end(self, account: Account) -> None:
        """Its books were closed."""
        del self._calls[account.id]
        self._remember(account)
        self._tell_idle()

    def amend(self, account: Account) -> None:
        """The books of an ended one were amended."""
        if account.id in self._ended:
            self._ended[account.id] = account

    def find(self, request_id: str) -> Account | None:
        """The books of a request, in flight or ended lately."""
        call = self._calls.get(request_id)
        return call.account() if call else self._ended.get(request_id)

    def secret_of(self, request_id: str) -> str | None:
        """What its owner, and nobody else, is told: nothing, unless requests have owners."""
        return None

    def running(self) -> list[Account]:
        """Those in flight, the oldest first."""
        return [call.account() for call in self._calls.values()]

    def ended(self, limit: int) -> list[Account]:
        """Those that ended lately, the newest first."""
        return list(islice(reversed(self._ended.values()), limit))

    def cancel(self, request_id: str, detail: str = "") -> CancelOutcome | None:
        """Cancel by id with reason ``requested``; None when nobody knows the id."""
        call = self._calls.get(request_id)
        if call is not None and call.cancel(Reason.REQUESTED, detail):
            return CancelOutcome.CANCELLED
        known = call is not None or request_id in self._ended
        return CancelOutcome.ALREADY_FINISHED if known else None

    def cancel_all(self, reason: Reason, detail: str = "") -> int:
        """Cancel everything in flight; return how many it hit."""
        return sum(call.cancel(reason, detail) for call in self)

    async def wait_idle(self) -> None:
        """Return once nothing is in flight.

        Cancellation:
            Stops waiting. Running requests are not touched.
        """
        while self._calls:
            self._idle = self._idle or anyio.Event()
            await self._idle.wait()

    def _is_taken(self, request_id: str) -> bool:
        if request_id in self._calls:
            return True
        ended = self._ended.get(request_id)
        return ended is not None and ended.given_up

    def _remember(self, account: Account) -> None:
        self._ended.pop(account.id, None)
        self._ended[account.id] = account
        if len(self._ended) > self.remembered:
            self._ended.popitem(last=False)

    def _tell_idle(self) -> None:
        if not self._calls and self._idle is not None:
            self._idle.set()
            self._idle = None

    def __repr__(self) -> str:
        return f"<InFlight {len(self._calls)} in flight, {len(self._ended)} ended>"
