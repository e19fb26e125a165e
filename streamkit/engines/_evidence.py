"""What is known of the end of one generation: collected piece by piece, reported as one record."""

from __future__ import annotations

import anyio

from streamkit._core import Cancellation

from ._base import Outcome, Proof, StopReport


class Evidence:
    """Collects what shows that a generation stopped; whoever waits is told when it is enough."""

    __slots__ = (
        "_concluded",
        "_stopped_at",
        "abort_error",
        "answered",
        "error",
        "made_at_cancel",
        "outcome",
        "proof",
        "told_at",
    )

    def __init__(self) -> None:
        self.answered = False
        self.proof: Proof | None = None
        self.told_at: float | None = None
        self.made_at_cancel: int | None = None  # the engine's own count
        self.error: BaseException | None = None  # what the engine died of
        self.abort_error: BaseException | None = None
        self.outcome: Outcome | None = None
        self._stopped_at: float | None = None
        self._concluded: anyio.Event | None = None

    def strengthen(self, proof: Proof) -> None:
        """Keep the strongest proof."""
        self.proof = max(self.proof or proof, proof)

    def conclude(self, outcome: Outcome, at: float | None) -> None:
        """It is over."""
        self.outcome = outcome
        self._stopped_at = at
        if self._concluded is not None:
            self._concluded.set()

    async def wait(self, timeout: float | None) -> None:
        """Return when it is over, or after ``timeout`` seconds."""
        if self.outcome is not None:
            return
        if self._concluded is None:
            self._concluded = anyio.Event()
        with anyio.move_on_after(timeout):
            await self._concluded.wait()

    def report(self, cancellation: Cancellation | None, made: int | None) -> StopReport:
        """All of it, by now; ``made`` is the engine's count."""
        before = self.made_at_cancel
        return StopReport(
            outcome=self.outcome or Outcome.RUNNING,
            proof=self.proof,
            answered=self.answered,
            told_after=_seconds(cancellation, self.told_at),
            stopped_after=_seconds(cancellation, self._stopped_at),
            tokens_made=made,
            tokens_after_cancel=None if made is None or before is None else made - before,
            error=self.error or self.abort_error,
        )

    def __repr__(self) -> str:
        return f"<Evidence {self.outcome or 'none'}, proof {self.proof}>"


def _seconds(cancellation: Cancellation | None, instant: float | None) -> float | None:
    if cancellation is None or instant is None:
        return None
    return max(0.0, instant - cancellation.at)
