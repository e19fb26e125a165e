"""The fake engine's own record of what it computed, for whom: a witness that no one else writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

KEEP_STEPS: Final = 256  # five seconds at 20 ms: enough to look at, a few MB with 1,000 sequences
KEEP_REQUESTS: Final = 4096  # ended ones; counters of those that run are kept in any case


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step.

    Attributes:
        number: Counts from 1.
        at: When it ended, on the loop's clock (seconds).
        prefill: Prompt tokens that it took, by request id.
        decode: Tokens that it made, by request id.
        for_nobody: Everything in it was for requests that had been cancelled.
    """

    number: int
    at: float
    prefill: Mapping[str, int]
    decode: Mapping[str, int]
    for_nobody: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request, as the engine computed it; the times are on the loop's clock (seconds).

    Attributes:
        request_id: Its id.
        prompt_tokens: Words in its prompt.
        limit: Tokens it may make in all.
        submitted_at: When it arrived.
        told_at: When the first abort arrived at the engine's door, obeyed or not; or None.
        ended_at: When the engine let go of it, or None.
        end: ``completed``, ``aborted``, ``killed``, ``failed``, or None while it is held.
        aborts: Aborts that arrived.
        steps: Steps in which something was computed for it.
        prefilled: Prompt tokens computed (``n`` sequences compute the prompt ``n`` times).
        tokens: Tokens made.
        steps_after_cancel: Of the steps, those that ended after the first abort had arrived.
        tokens_after_cancel: Tokens that these made.
    """

    request_id: str
    prompt_tokens: int
    limit: int
    submitted_at: float
    told_at: float | None
    ended_at: float | None
    end: str | None
    aborts: int
    steps: int
    prefilled: int
    tokens: int
    steps_after_cancel: int
    tokens_after_cancel: int


class _Entry:
    __slots__ = (
        "aborts",
        "end",
        "ended_at",
        "limit",
        "prefilled",
        "prompt_tokens",
        "request_id",
        "steps",
        "steps_after_cancel",
        "submitted_at",
        "tokens",
        "tokens_after_cancel",
        "told_at",
    )

    def __init__(self, request_id: str, prompt_tokens: int, limit: int, at: float) -> None:
        self.request_id = request_id
        self.prompt_tokens = prompt_tokens
        self.limit = limit
        self.submitted_at = at
        self.told_at: float | None = None
        self.ended_at: float | None = None
        self.end: str | None = None
        self.aborts = 0
        self.steps = 0
        self.prefilled = 0
        self.tokens = 0
        self.steps_after_cancel = 0
        self.tokens_after_cancel = 0

    def record(self) -> RequestRecord:
        return RequestRecord(**{name: getattr(self, name) for name in self.__slots__})

    def __repr__(self) -> str:
        return f"<_Entry {self.request_id}: {self.tokens} tokens in {self.steps} steps>"


class StepLog:
    """What the simulated engine computed: exact counters, and the last steps one by one.

    Only the simulator writes it. Books that streamkit keeps of the same requests can be held
    against it, to the token.

    Attributes:
        steps: Steps made since the start.
        tokens: Tokens made.
        prefilled: Prompt tokens computed.
        steps_for_nobody: Steps in which everything was for cancelled requests.
        tokens_after_cancel: Tokens made for requests after their abort had arrived.
    """

    __slots__ = (
        "_keep",
        "_live",
        "_past",
        "_records",
        "prefilled",
        "steps",
        "steps_for_nobody",
        "tokens",
        "tokens_after_cancel",
    )

    def __init__(self, *, keep_steps: int = KEEP_STEPS, keep_requests: int = KEEP_REQUESTS) -> None:
        self._records: deque[StepRecord] = deque(maxlen=keep_steps)
        self._keep = keep_requests
        self._live: dict[str, _Entry] = {}
        self._past: dict[str, _Entry] = {}
        self.steps: int = 0
        self.tokens: int = 0
        self.prefilled: int = 0
        self.steps_for_nobody: int = 0
        self.tokens_after_cancel: int = 0

    @property
    def records(self) -> tuple[StepRecord, ...]:
        """The last steps, oldest first (256 of them)."""
        return tuple(self._records)

    def request(self, request_id: str) -> RequestRecord | None:
        """What was computed for a request that is held, or is one of the last 4096 that ended."""
        entry = self._live.get(request_id) or self._past.get(request_id)
        return None if entry is None else entry.record()

    def requests(self) -> list[RequestRecord]:
        """All that it still knows, those that ended first."""
        return [entry.record() for entry in (*self._past.values(), *self._live.values())]

    def tokens_of(self, request_id: str) -> int | None:
        """Tokens made for a request; None for one that it does not know."""
        entry = self._live.get(request_id) or self._past.get(request_id)
        return None if entry is None else entry.tokens

    # -- the simulator writes ------------------------------------------------------------------

    def submitted(self, request_id: str, *, prompt_tokens: int, limit: int, at: float) -> None:
        """A request has arrived."""
        self._past.pop(request_id, None)
        self._live[request_id] = _Entry(request_id, prompt_tokens, limit, at)

    def told(self, request_id: str, at: float) -> None:
        """An abort has arrived."""
        entry = self._live.get(request_id)
        if entry is None:
            return
        entry.aborts += 1
        if entry.told_at is None:
            entry.told_at = at

    def step(self, at: float, prefill: Mapping[str, int], decode: Mapping[str, int]) -> None:
        """A step has ended."""
        self.steps += 1
        for_nobody = bool(prefill or decode)
        for request_id, tokens in prefill.items():
            entry = self._live[request_id]
            entry.prefilled += tokens
            self.prefilled += tokens
            if request_id not in decode:
                for_nobody &= self._count(entry, 0)
        for request_id, tokens in decode.items():
            entry = self._live[request_id]
            self.tokens += tokens
            for_nobody &= self._count(entry, tokens)
        self.steps_for_nobody += for_nobody
        self._records.append(
            StepRecord(
                number=self.steps, at=at, prefill=prefill, decode=decode, for_nobody=for_nobody
            )
        )

    def ended(self, request_id: str, end: str, at: float) -> None:
        """The engine let go of a request."""
        entry = self._live.pop(request_id)
        entry.end = end
        entry.ended_at = at
        self._past[request_id] = entry
        if len(self._past) > self._keep:
            del self._past[next(iter(self._past))]

    def _count(self, entry: _Entry, tokens: int) -> bool:
        """Count a step for a request; True when it was for nobody."""
        entry.steps += 1
        entry.tokens += tokens
        if entry.told_at is None:
            return False
        entry.steps_after_cancel += 1
        entry.tokens_after_cancel += tokens
        self.tokens_after_cancel += tokens
        return True

    def __repr__(self) -> str:
        return (
            f"<StepLog {self.steps} steps, {self.tokens} tokens "
            f"({self.tokens_after_cancel} after a cancel), {len(self._live)} requests held>"
        )
