"""Why work was cut short: a closed set, because clients, logs and metrics branch on it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from ._lifecycle import Phase


class Reason(StrEnum):
    """The causes of a cancellation; the values are the words on the wire and are stable."""

    CLIENT_DISCONNECT = "client_disconnect"
    WRITE_STALLED = "write_stalled"
    DEADLINE = "deadline"
    DRAIN = "drain"
    REQUESTED = "requested"
    SHED = "shed"
    SUPERSEDED = "superseded"
    ENGINE_FAILED = "engine_failed"
    ERROR = "error"


class Cancellation(NamedTuple):
    """One cancel, as it happened.

    Attributes:
        reason: Why.
        at: When, on the event loop's clock (seconds).
        phase: What the work was doing then.
        detail: One human sentence, or empty.
        cause: The cancellation that led to this one (a parent token's), or None.
    """

    reason: Reason
    at: float
    phase: Phase | None = None
    detail: str = ""
    cause: Cancellation | None = None

    @property
    def root(self) -> Cancellation:
        """The first link of the chain: what happened outside."""
        return self if self.cause is None else self.cause.root

    def caused(self, *, at: float, phase: Phase | None) -> Cancellation:
        """The cancellation of something that hangs on this one."""
        return Cancellation(self.reason, at, phase, self.detail, self)

    def seen_in(self, phase: Phase | None) -> Cancellation:
        """The same, by one who knows better what the work was doing."""
        return self if phase is self.phase else self._replace(phase=phase)

    def __str__(self) -> str:
        where = f" in phase {self.phase}" if self.phase else ""
        why = f": {self.detail}" if self.detail else ""
        return f"cancelled ({self.reason}){where}{why}"
