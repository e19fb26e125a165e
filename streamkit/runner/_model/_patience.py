"""Time for a model that asks `is_disconnected()` itself to act on the answer, before it is cut."""

from __future__ import annotations

from typing import Final

from streamkit._core import Cancellation, CancelSource, current_loop

ASK_GRACE: Final = 2.0
# seconds; models written for Truss look between two chunks, and abort their engine after the
# answer: interrupted before they asked, they never would. Twice the step of its own example.


class Patience:
    """Cancels the stage of a request when the request is: at once, or after the grace.

    Attributes:
        stage: What the model's code hangs on.
        asks: Whether the code that runs asks by itself.
        told_at: The instant at which the model knew, or its stage was cancelled.
    """

    __slots__ = ("_cancellation", "_loop", "asks", "stage", "told_at")

    def __init__(self) -> None:
        self._loop = current_loop()
        self._cancellation: Cancellation | None = None
        self.stage: CancelSource = CancelSource()
        self.asks: bool = False
        self.told_at: float | None = None

    def cancel(self, cancellation: Cancellation) -> None:
        """The request was cancelled."""
        self._cancellation = cancellation
        if not self.asks:
            self._cut()
            return
        self._loop.call_at(self._loop.now() + ASK_GRACE, self._cut)

    def asked(self) -> bool:
        """The model asks: whether it should stop."""
        self.asks = True
        if self._cancellation is not None:
            self._told()
        return self._cancellation is not None

    def end(self) -> None:
        """Nothing of the model's runs any more."""
        self.stage.finish()

    def _cut(self) -> None:
        cause = self._cancellation
        assert cause is not None
        self._told()
        self.stage.cancel(cause.reason, cause.detail, cause=cause)

    def _told(self) -> None:
        if self.told_at is None:
            self.told_at = self._loop.now()
