"""The ledger: every request's book, the totals of all, and whether they balance."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final, Literal

from streamkit._core import Phase, current_loop

from ._account import Account, Ending, Sums, Totals
from ._book import Book

logger = logging.getLogger("streamkit.ledger")

Refusal = Literal["invalid", "full", "unavailable"]
"""Why a request was never started: it was wrong, there was no room, or the engine was not ready."""


class Ledger:
    """Opens and closes books; each close is checked.

    For each request ``produced == delivered + undelivered``: the engine's own count of what it made
    against our two counts of what came out of it. For all of them
    ``started == finished + cancelled + failed + running``. A violation is an error in the log, with
    all numbers, and counted; it stops nothing.
    """

    __slots__ = (
        "_by_outcome",
        "_ended",
        "_open",
        "_quarantined",
        "_received",
        "_refused",
        "_violations",
    )

    def __init__(self) -> None:
        self._received = 0
        self._refused: Counter[str] = Counter()
        self._open: dict[Book, None] = {}
        self._ended: dict[Ending, Sums] = {}
        self._by_outcome: Counter[Phase] = Counter()  # of those, requests
        self._quarantined: dict[Book, Account] = {}
        self._violations = 0

    def open(self, request_id: str) -> Book:
        """A request arrived."""
        book = Book(request_id, current_loop().now)
        self._received += 1
        self._open[book] = None
        return book

    def refuse(self, book: Book, why: Refusal) -> Account:
        """It was never started; the book has been marked as failed."""
        del self._open[book]
        self._refused[why] += 1
        return book.account()

    def close(self, book: Book) -> Account:
        """It ended, however it ended: check its book and add it to the totals."""
        del self._open[book]
        account = book.account()
        self._check_tokens(account)
        ending = _ending(account)
        self._ended[ending] = self._ended.get(ending, _NONE).plus(account)
        self._by_outcome[ending.outcome] += 1
        if book.unproved:
            self._quarantined[book] = account
        self._check_requests()
        return account

    def amend(self, book: Book) -> Account:
        """An engine that was given up proved, late, that it stopped: what it made since counts."""
        before = self._quarantined.pop(book)
        account = book.account()
        self._check_tokens(account)
        ending = _ending(account)
        without = self._ended[_ending(before)].minus(before)
        self._ended[ending] = without.plus(account)
        return account

    def totals(self) -> Totals:
        """All of it, at this moment."""
        live = Sums()
        for book in self._open:
            live = live.plus(book.account())
        ended = dict(self._ended)
        for book, before in self._quarantined.items():
            # It was given up and may run on: count what it made to this moment.
            ending = _ending(before)
            ended[ending] = ended[ending].minus(before).plus(book.account())
        return Totals(
            received=self._received,
            refused=dict(self._refused),
            running=len(self._open),
            ended=ended,
            live=live,
            quarantined=len(self._quarantined),
            violations=self._violations,
        )

    def _check_tokens(self, account: Account) -> None:
        if account.produced != account.delivered + account.undelivered:
            self._violated(
                f"request {account.id} ({account.phase}): the engine made {account.produced} "
                f"tokens, but {account.delivered} were delivered and {account.undelivered} were not"
            )

    def _check_requests(self) -> None:
        started = self._received - sum(self._refused.values())
        ended = self._by_outcome
        if started != sum(ended.values()) + len(self._open):
            self._violated(
                f"{started} requests started, but {ended[Phase.FINISHED]} finished, "
                f"{ended[Phase.CANCELLED]} were cancelled, {ended[Phase.FAILED]} failed and "
                f"{len(self._open)} are running"
            )

    def _violated(self, facts: str) -> None:
        self._violations += 1
        logger.error("the books do not balance: %s", facts)

    def __repr__(self) -> str:
        return (
            f"<Ledger {self._received} received, {len(self._open)} running, "
            f"{len(self._quarantined)} quarantined, {self._violations} violations>"
        )


_NONE: Final = Sums()


def _ending(account: Account) -> Ending:
    outcome = Phase.CANCELLED if account.phase is Phase.QUARANTINED else account.phase
    return Ending(outcome, account.reason, account.cancelled_in)
