"""Who may start: a bound on what waits, decided at once and without waiting."""

from __future__ import annotations

import math
from typing import Final

from streamkit.errors import RequestRefused

from ._served import Served

MAX_QUEUED: Final = 256
# With eight slots and ten seconds an answer the last of these waits five minutes: longer than
# almost anybody, so that more of them would be work for nobody.
UNKNOWN_SLOTS: Final = 64  # for an engine that does not tell; most are configured below that
_WEIGHT: Final = 0.2  # of the newest request in the mean that Retry-After is made of
_LONGEST_RETRY: Final = 60.0  # seconds; a guess further ahead than that is worth nothing


class Admission:
    """Counts the requests that were admitted and not reaped, and says who may join them.

    ``slots - quarantined + max_queued`` may be admitted at once. While no slot is left that can be
    trusted, or the engine is dead, or the server drains, nobody may.

    Attributes:
        admitted: Requests that hold a place.
    """

    __slots__ = ("_closed", "_kind", "_max_queued", "_mean_seconds", "_served", "admitted")

    def __init__(
        self, served: Served, max_queued: int = MAX_QUEUED, *, kind: str = "engine"
    ) -> None:
        self._kind = kind
        self._served = served
        self._max_queued = max_queued
        self._mean_seconds = 1.0
        self._closed: str | None = None
        self.admitted: int = 0

    @property
    def slots(self) -> int:
        """Requests that can run at once on slots that are trusted."""
        books = self._served.statistics()
        return UNKNOWN_SLOTS if books is None else max(0, books.slots - books.quarantined)

    def close(self, why: str) -> None:
        """Admit nobody any more."""
        self._closed = why

    def open(self) -> None:
        """Admit requests again."""
        self._closed = None

    def not_ready(self) -> str | None:
        """Why nobody would be admitted, however few are in flight; None when that is not so."""
        if self._closed is not None:
            return self._closed
        if self._served.failure is not None:
            return f"{self._kind} {self._served.name} has failed"
        if self.slots == 0:
            return f"all slots of {self._kind} {self._served.name} are quarantined"
        return None

    def check(self) -> None:
        """Return if there is a place.

        Raises:
            RequestRefused: There is none. The status is 429 when the queue is full, 503 when the
                engine is not ready.
        """
        if (why := self.not_ready()) is not None:
            raise RequestRefused(f"not ready: {why}", retry_after=1.0, status=503)
        limit = self.slots + self._max_queued
        if self.admitted >= limit:
            retry_after = self._retry_after()
            raise RequestRefused(
                f"full: {self.admitted} requests in flight, {self.slots} slots and "
                f"{self._max_queued} places to wait; try again in {retry_after:.0f} s",
                retry_after=retry_after,
            )

    def enter(self) -> None:
        """Take a place; :meth:`leave` gives it back."""
        self.admitted += 1

    def leave(self, seconds: float) -> None:
        """Give the place back after so many seconds."""
        self.admitted -= 1
        self._mean_seconds += _WEIGHT * (seconds - self._mean_seconds)

    def _retry_after(self) -> float:
        # A place becomes free each time one of those in the slots ends.
        seconds = math.ceil(self._mean_seconds / max(1, self.slots))
        return min(max(1.0, seconds), _LONGEST_RETRY)

    def __repr__(self) -> str:
        state = f"closed ({self._closed})" if self._closed else "open"
        return f"<Admission {state}, {self.admitted} admitted, {self.slots} slots>"
