"""The longest silence of a stream: past it the work is cancelled, and not only its answer."""

from __future__ import annotations

from dataclasses import dataclass

from streamkit._core import CancelSource, Reason, Timer, current_loop


@dataclass(frozen=True, slots=True, kw_only=True)
class GapLimits:
    """Seconds that a stream may be silent; None for as long as it likes.

    Attributes:
        first: Until its first chunk.
        between: From one chunk to the next.
    """

    first: float | None = None
    between: float | None = None


class Gap:
    """Watches one stream: two stamps a chunk, and one timer that is set once for each limit.

    Only the time in which the source is asked for a chunk counts: a reader that is slow is the
    ``write_stall`` of the edge.
    """

    __slots__ = ("_asked_at", "_count", "_limits", "_loop", "_source", "_timer")

    def __init__(self, limits: GapLimits, source: CancelSource) -> None:
        self._limits = limits
        self._source = source
        self._loop = current_loop()
        self._asked_at: float | None = None
        self._count = 0
        self._timer: Timer | None = None

    def begin(self) -> None:
        """The next chunk is asked for."""
        self._asked_at = self._loop.now()
        if self._timer is None:
            self._arm(self._asked_at)

    def end(self) -> None:
        """It is there."""
        self._asked_at = None
        self._count += 1
        if self._count == 1:
            self.close()  # another limit applies from here on

    def pause(self) -> bool:
        """The reader is busy elsewhere; True when a chunk has been asked for meanwhile."""
        asked, self._asked_at = self._asked_at is not None, None
        return asked

    def close(self) -> None:
        """No chunk will be asked for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _limit(self) -> float | None:
        return self._limits.between if self._count else self._limits.first

    def _arm(self, since: float) -> None:
        if (limit := self._limit) is not None:
            self._timer = self._loop.call_at(since + limit, self._due)

    def _due(self) -> None:
        self._timer = None
        limit, asked_at = self._limit, self._asked_at
        assert limit is not None
        if asked_at is None:
            return  # the next begin() sets it again
        if self._loop.now() - asked_at < limit:
            self._arm(asked_at)
            return
        what = "no further chunk" if self._count else "no first chunk"
        self._source.cancel(Reason.DEADLINE, f"{what} came for {limit:g} s (read timeout)")
