"""Time for a model that asks `is_disconnected()` itself to act on the answer, before it is cut."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from streamkit._core import (
    Cancellation,
    CancelSource,
    Interrupted,
    Loop,
    Reason,
    current_loop,
    resume,
)
from streamkit.errors import StreamCancelled
from streamkit.streams import CLOSE_GRACE, Step

R = TypeVar("R")

ASK_GRACE: Final = 2.0
# seconds; models written for Truss look between two chunks, and abort their engine after the
# answer: interrupted before they asked, they never would. Twice the step of its own example.


class Patience:
    """Cuts the model's code of a request short when that is cancelled: at once, or after the grace.

    Attributes:
        asks: Whether the code that runs asks by itself.
        loop: Where the request is served.
        told_at: The instant at which the model knew, or was cut short.
    """

    __slots__ = ("_cancellation", "_cut", "_stage", "_step", "asks", "loop", "told_at")

    def __init__(self) -> None:
        self.loop: Loop = current_loop()
        self._cancellation: Cancellation | None = None
        self._cut = False
        self._stage: CancelSource | None = None
        self._step: Step | None = None
        self.asks: bool = False
        self.told_at: float | None = None

    @property
    def stage(self) -> CancelSource:
        """What the streams hang on that the model's code has returned."""
        # Made when the first one does: most requests have none.
        if self._stage is None:
            self._stage = CancelSource()
            if self._cut and (cause := self._cancellation) is not None:
                self._stage.cancel(cause.reason, cause.detail, cause=cause)
        return self._stage

    async def run(self, work: Callable[[], Awaitable[R]], subject: str) -> R:
        """Await ``work()``, and end it when the time is over.

        Raises:
            StreamCancelled: It was ended, or never called because the cancel came before.
        """
        self._raise_if_cut()
        rest = work()
        if self.loop.steps_by_hand:  # it may never wait: then there is nothing to end
            steps = rest.__await__()
            try:
                signal = next(steps)
            except StopIteration as done:
                return done.value
            rest = resume(steps, signal)
        self._step = step = Step(self.loop, CLOSE_GRACE, subject)
        if self._cut:  # by its own first lines: heard one turn later, where it waits
            self.loop.call_soon(step.stop)
        try:
            return await step.run(rest)
        except Interrupted:
            self._raise_if_cut()
            raise
        finally:
            self._step = None

    def cancel(self, cancellation: Cancellation) -> None:
        """The request was cancelled."""
        self._cancellation = cancellation
        if not self.asks:
            self._cut_short()
            return
        self.loop.call_at(self.loop.now() + ASK_GRACE, self._cut_short)

    def give_up(self, reason: Reason, detail: str) -> None:
        """The request has failed: what still runs of it runs for nobody."""
        if self._stage is not None:
            self._stage.cancel(reason, detail)

    def asked(self) -> bool:
        """The model asks: whether it should stop."""
        self.asks = True
        if self._cancellation is not None:
            self._told()
        return self._cancellation is not None

    def end(self) -> None:
        """Nothing of the model's runs any more."""
        if self._stage is not None:
            self._stage.finish()

    def _cut_short(self) -> None:
        cause = self._cancellation
        assert cause is not None
        self._cut = True
        self._told()
        if self._step is not None:
            self._step.stop()
        if self._stage is not None:
            self._stage.cancel(cause.reason, cause.detail, cause=cause)

    def _raise_if_cut(self) -> None:
        if self._cut and self._cancellation is not None:
            raise StreamCancelled(self._cancellation)

    def _told(self) -> None:
        if self.told_at is None:
            self.told_at = self.loop.now()
