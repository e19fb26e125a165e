"""One request's book: written as things happen, by the one request it is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from streamkit._core import LIVE, TRANSITIONS, Cancellation, Event, Phase, Reason, advance
from streamkit.engines import Outcome, StopReport, Usage

from ._account import Account

_ENGINE_SAYS: Final = {
    Phase.QUEUED: Event.ENQUEUE,
    Phase.PREFILL: Event.START,
    Phase.DECODE: Event.TOKEN,
}


class Counts(Protocol):
    """What came out of something that makes output, as ``Usage`` says it."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        ...

    @property
    def handed_over(self) -> int:
        """Tokens given to the consumer."""
        ...

    @property
    def produced(self) -> int:
        """All tokens that came out."""
        ...


class Maker(Protocol):
    """What makes the output, and counts it: an engine's generation, or a model's work."""

    @property
    def usage(self) -> Counts:
        """What came out of it."""
        ...

    @property
    def limit(self) -> int | None:
        """Tokens that it may make at most; None when there is no such number."""
        ...


class Book:
    """What happened to one request; :meth:`account` is its snapshot.

    Attributes:
        id: The request's id.
        delivered: Tokens handed to the server before the client was known to be gone.
    """

    __slots__ = (
        "_arrived",
        "_cancellation",
        "_closed_at",
        "_detail",
        "_first_token_at",
        "_maker",
        "_now",
        "_offered",
        "_offered_at",
        "_phase",
        "_reason",
        "_report",
        "_seconds",
        "_sending",
        "_since",
        "delivered",
        "id",
    )

    def __init__(self, request_id: str, now: Callable[[], float]) -> None:
        self.id: str = request_id
        self.delivered: int = 0
        self._now = now
        self._arrived = self._since = now()
        self._phase = Phase.READING
        self._seconds: dict[Phase, float] = {}
        self._sending = 0.0
        self._offered = 0  # tokens of the chunk that is being handed over
        self._offered_at: float | None = None
        self._first_token_at: float | None = None
        self._maker: Maker | None = None
        self._cancellation: Cancellation | None = None
        self._report: StopReport | None = None
        self._reason: Reason | None = None
        self._detail = ""
        self._closed_at: float | None = None

    @property
    def phase(self) -> Phase:
        """What the request is doing."""
        # A chunk is handed over some fifty times a second: that is a stamp, not a change of state.
        handing_over = self._offered_at is not None and self._phase is Phase.DECODE
        return Phase.SENDING if handing_over else self._phase

    @property
    def unproved(self) -> bool:
        """Whether the engine was given up, and has not proved to this moment that it stopped."""
        return self._report is not None and not self._report.stopped

    # -- as things happen ----------------------------------------------------------------------

    def opened(self, maker: Maker) -> None:
        """There is something that makes output: what came out of it is read from there."""
        self._maker = maker

    def engine_says(self, phase: Phase) -> None:
        """The engine reports a phase; its end is not yet the end of the request."""
        if (event := _ENGINE_SAYS.get(phase)) is not None:
            self.stage(event)

    def stage(self, event: Event) -> Phase:
        """A model class enters a stage; one that it passes twice is no change."""
        phase = TRANSITIONS[self._phase].get(event)
        if phase is not None and (phase is not self._phase or self._first_token_at is None):
            self._turn(phase)
            if event is Event.TOKEN and self._first_token_at is None:
                self._first_token_at = self._since
        return self.phase

    def offer(self, tokens: int) -> None:
        """A chunk is being handed to the server."""
        self._offered = tokens
        self._offered_at = self._now()

    def taken(self) -> None:
        """The server has taken the chunk, and the client was there."""
        self._stop_sending()
        self.delivered += self._offered
        self._offered = 0

    def answer(self) -> Phase:
        """The answer is complete, and about to be sent as a whole."""
        return self.stage(Event.BLOCK)

    # -- its end -------------------------------------------------------------------------------

    def cancel(self, cancellation: Cancellation) -> None:
        """It was cut short."""
        if self.phase is Phase.SENDING and self._phase is not Phase.SENDING:
            self._stop_sending()
            self._enter(Event.BLOCK)
        self._cancellation = cancellation
        self._reason, self._detail = cancellation.reason, cancellation.detail
        self._enter(Event.CANCEL)

    def settle(self, report: StopReport | None) -> None:
        """The engine is proved to have stopped, or was given up; None when it was never asked."""
        self._report = report
        if self._phase is Phase.FINISHED:  # at a stop string; the engine has let go of it at last
            return
        self._enter(Event.GIVE_UP if self.unproved else Event.PROVE)
        if self._closed_at is None:  # else it was given up before, and the proof came late
            self._closed_at = self._since

    def finish(self, report: StopReport, *, dropped: int = 0) -> None:
        """Its answer went out whole; so many tokens came after its end."""
        assert self._maker is not None
        self._report = report
        self._stop_sending()
        self.delivered = self._maker.usage.handed_over - dropped
        self._enter(Event.FINISH)
        self._closed_at = self._since

    def fail(self, reason: Reason, detail: str, report: StopReport | None) -> None:
        """Its work broke, or it was refused."""
        self._report = report
        self._reason, self._detail = reason, detail
        self._stop_sending()
        self._enter(Event.FAIL)
        self._closed_at = self._since

    # -- what it says --------------------------------------------------------------------------

    def account(self) -> Account:
        """Everything, at this moment."""
        usage = _NOTHING if self._maker is None else self._maker.usage
        report, cut = self._report, self._cut_short()
        at = self._now() if self._closed_at is None else self._closed_at
        wasted = 0 if report is None else report.tokens_after_cancel or 0
        made = self._made(usage)
        # What an engine makes after the cancel it may keep to itself; before it, it may not.
        unseen = min(max(0, made - usage.produced), wasted)
        in_transit = 0 if self._closed_at is not None else usage.handed_over - self.delivered
        return Account(
            id=self.id,
            phase=self.phase,
            arrived_at=self._arrived,
            age=at - self._arrived,
            seconds=self._seconds_until(at),
            first_token_after=_plus(-self._arrived, self._first_token_at),
            prompt_tokens=usage.prompt_tokens,
            produced=made,
            delivered=self.delivered,
            undelivered=usage.produced - self.delivered - in_transit + unseen,
            wasted=wasted,
            saved=self._saved(made),
            reason=self._reason,
            detail=self._detail,
            proof=report.proof if report else None,
            steps=report.steps if report else (),
            misbehaviour=report.misbehaviour if report else None,
            cancelled_in=cut.in_phase,
            detected_after=cut.detected_after,
            told_after=cut.told_after,
            proved_after=cut.proved_after,
        )

    def _cut_short(self) -> _Cut:
        report, cancellation = self._report, self._cancellation
        if cancellation is None:  # it ended at a stop string, or the engine was never told
            return _NOT_CUT if report is None else _stopped_early(report)
        # The engine's report counts from our token; the cause may lie in an outer one.
        late = cancellation.at - cancellation.root.at
        return _Cut(
            cancellation.phase,
            cancellation.root.at - self._arrived,
            _plus(late, report.told_after if report else None),
            _plus(late, report.stopped_after if report else None),
        )

    def _made(self, usage: Counts) -> int:
        """What the engine made, by its own count where that is final."""
        counted = None if self._report is None else self._report.tokens_made
        if counted is None:
            return usage.produced
        # One that was given up may go on: its count is as old as the report, what came out is not.
        return max(counted, usage.produced) if self.unproved else counted

    def _saved(self, made: int) -> int:
        # What ended by itself before the cancel came had nothing left to save.
        report, maker = self._report, self._maker
        if report is None or report.outcome is not Outcome.CANCELLED or maker is None:
            return 0
        return max(0, (maker.limit or made) - made)

    def _seconds_until(self, at: float) -> dict[Phase, float]:
        seconds = dict(self._seconds)
        if self._closed_at is None:
            seconds[self._phase] = seconds.get(self._phase, 0.0) + at - self._since
        sending = self._sending
        if self._offered_at is not None and self._phase in LIVE:
            sending += at - self._offered_at
        if sending:
            # Chunks are handed over while the engine decodes: that time is counted once.
            seconds[Phase.DECODE] = max(0.0, seconds.get(Phase.DECODE, 0.0) - sending)
            seconds[Phase.SENDING] = seconds.get(Phase.SENDING, 0.0) + sending
        return seconds

    def _stop_sending(self) -> None:
        if self._offered_at is not None:
            self._sending += self._now() - self._offered_at
            self._offered_at = None

    def _enter(self, event: Event) -> None:
        self._turn(advance(self._phase, event))

    def _turn(self, phase: Phase) -> None:
        now = self._now()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def __repr__(self) -> str:
        return f"<Book {self.id} {self.phase}, {self.delivered} tokens delivered>"


class _Cut(NamedTuple):
    """What an account says of a cancel."""

    in_phase: Phase | None
    detected_after: float | None
    told_after: float | None
    proved_after: float | None


_NOT_CUT: Final = _Cut(None, None, None, None)
_NOTHING: Final = Usage()


def _stopped_early(report: StopReport) -> _Cut:
    return _Cut(None, None, report.told_after, report.stopped_after)


def _plus(seconds: float, other: float | None) -> float | None:
    return None if other is None else seconds + other
