"""What the books say, as frozen records: one request's account, sums over many, and all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import add, sub
from types import MappingProxyType
from typing import NamedTuple

from streamkit._core import Phase, Reason
from streamkit.engines import Misbehaviour, Proof


class Account(NamedTuple):
    """One request's books at one moment.

    Tokens that its answer still holds on the way to the client are in ``produced`` alone, so that
    ``produced == delivered + undelivered`` holds once it has ended.

    Attributes:
        id: Its id.
        phase: What it is doing, or how it ended.
        arrived_at: When it arrived, on the loop's clock (seconds): outside of tests that is
            ``time.monotonic()``, which on Linux all processes of a machine share.
        age: Seconds from its arrival until now, or until its books were closed.
        seconds: Seconds spent in each phase.
        first_token_after: Seconds from its arrival to the engine's first token, or None.
        prompt_tokens: Tokens of its prompt, as the engine counts them.
        produced: Tokens that the engine made for it, by the engine's own count once it has ended.
        delivered: Tokens handed to the server before the client was known to be gone.
        undelivered: Tokens that came out of the engine and were not delivered.
        wasted: Of those, tokens that the engine made after the cancel, as far as it can tell.
        saved: Tokens that it was allowed to make, and did not because it was cancelled.
        reason: Why it was cut short, refused or failed; None when it was not.
        detail: One human sentence about that, or empty.
        cancelled_in: The phase in which it was cut short, or None.
        detected_after: Seconds from its arrival until its token was cancelled, or None.
        told_after: Seconds from there until the engine was told to abort, or None. A request that
            ended at a stop string has no reason, and this and what follows count from there.
        proved_after: Seconds from the cancel until the engine was proved to have stopped, or None.
        proof: The strongest proof of stop that there is, or None.
        steps: The rungs of the ladder that the proof took.
        misbehaviour: How the engine broke its word, or None.
    """

    id: str
    phase: Phase
    arrived_at: float
    age: float
    seconds: Mapping[Phase, float] = MappingProxyType({})
    first_token_after: float | None = None
    prompt_tokens: int = 0
    produced: int = 0
    delivered: int = 0
    undelivered: int = 0
    wasted: int = 0
    saved: int = 0
    reason: Reason | None = None
    detail: str = ""
    cancelled_in: Phase | None = None
    detected_after: float | None = None
    told_after: float | None = None
    proved_after: float | None = None
    proof: Proof | None = None
    steps: tuple[str, ...] = ()
    misbehaviour: Misbehaviour | None = None

    @property
    def given_up(self) -> bool:
        """Whether the engine was given up, and has not proved to this moment that it stopped."""
        reported = "report" in self.steps and self.proved_after is None
        return self.phase is Phase.QUARANTINED or reported


class Sums(NamedTuple):
    """Many accounts added up; the fields are those of :class:`Account`."""

    requests: int = 0
    prompt_tokens: int = 0
    produced: int = 0
    delivered: int = 0
    undelivered: int = 0
    wasted: int = 0
    saved: int = 0

    def plus(self, account: Account, *, requests: int = 1) -> Sums:
        """These and one more."""
        return Sums(*map(add, self, _summed(account, requests)))

    def minus(self, account: Account, *, requests: int = 1) -> Sums:
        """These without that one."""
        return Sums(*map(sub, self, _summed(account, requests)))


def _summed(account: Account, requests: int) -> tuple[int, ...]:
    """What of it is added up, in the order of the fields of :class:`Sums`."""
    return (
        requests,
        account.prompt_tokens,
        account.produced,
        account.delivered,
        account.undelivered,
        account.wasted,
        account.saved,
    )


class Ending(NamedTuple):
    """How requests ended, why, and in which phase they were cut short.

    A quarantined request counts as cancelled: it was cut short, and only its proof is missing.
    """

    outcome: Phase
    reason: Reason | None
    phase: Phase | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The books of all requests since the start.

    ``started == finished + cancelled + failed + running`` at every moment.

    Attributes:
        received: Requests that arrived.
        refused: Of those, never started, by why: ``invalid``, ``full`` or ``unavailable``.
        running: Started and not ended.
        ended: Sums by how requests ended.
        live: Sums over those that run.
        quarantined: Requests whose stop the engine has not proved to this moment.
        violations: Times that books did not balance.
    """

    received: int
    refused: Mapping[str, int]
    running: int
    ended: Mapping[Ending, Sums]
    live: Sums
    quarantined: int
    violations: int

    @property
    def started(self) -> int:
        """Requests that were not refused."""
        return self.received - sum(self.refused.values())

    @property
    def finished(self) -> int:
        """Requests that were answered whole."""
        return self._count(Phase.FINISHED)

    @property
    def cancelled(self) -> int:
        """Requests that were cut short."""
        return self._count(Phase.CANCELLED)

    @property
    def failed(self) -> int:
        """Requests whose work broke."""
        return self._count(Phase.FAILED)

    def _count(self, outcome: Phase) -> int:
        return sum(sums.requests for ending, sums in self.ended.items() if ending[0] is outcome)
