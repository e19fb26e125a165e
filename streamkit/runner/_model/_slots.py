"""The slots of `predict`: first come, first served, and given back when the work has stopped."""

from __future__ import annotations

from collections import OrderedDict

import anyio

from streamkit._core import Cancellation, CancelToken
from streamkit.errors import RequestRefused


class _Waiter:
    __slots__ = ("granted", "woken")

    def __init__(self) -> None:
        self.granted = False
        self.woken = anyio.Event()


class Slots:
    """So many requests may be in ``predict`` at once; the others wait in the order they came.

    anyio's semaphore is not exact enough: a waiter that was cancelled stays in its queue until its
    task runs, and a slot may go to it meanwhile.

    Attributes:
        capacity: Requests that may be in ``predict`` at once.
        taken: Slots in use.
        quarantined: Of those, slots whose request is over while its work does not end.
        lost: Of those, slots for which that has been so for long: nobody should count on them.
    """

    __slots__ = ("_waiting", "capacity", "lost", "quarantined", "taken")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"predict_concurrency must be at least 1, got {capacity}")
        self.capacity: int = capacity
        self.taken: int = 0
        self.quarantined: int = 0
        self.lost: int = 0
        self._waiting: OrderedDict[_Waiter, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    async def take(self, token: CancelToken, limit: float | None = None) -> None:
        """Wait for a slot; :meth:`give_back` returns it.

        Raises:
            StreamCancelled: The token was cancelled; the waiter has left the queue in that turn.
            RequestRefused: It took longer than ``limit`` seconds; status 503.

        Cancellation:
            Leaves the queue. A slot that was just granted goes to the next.
        """
        token.raise_if_cancelled()
        if self.taken < self.capacity and not self._waiting:
            self.taken += 1
            return
        waiter = _Waiter()
        self._waiting[waiter] = None
        listener = token.add_listener(lambda cause: self._leave(waiter, cause))
        try:
            with anyio.move_on_after(limit):
                await waiter.woken.wait()
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            listener.remove()
        token.raise_if_cancelled()  # the listener has left the queue, or does so in a moment
        if not waiter.granted:
            self._leave(waiter)
            raise RequestRefused(
                f"no slot became free within {limit:g} s; {self.capacity} in use, "
                f"{self.waiting} requests wait",
                retry_after=max(1.0, limit or 0.0),
                status=503,
            )

    def give_back(self) -> None:
        """A slot's work has stopped: the one that waits longest gets it."""
        if self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            waiter.granted = True
            waiter.woken.set()
        else:
            self.taken -= 1

    def _leave(self, waiter: _Waiter, _: Cancellation | None = None) -> None:
        """Out of the queue, or with the slot that it got and cannot use."""
        self._waiting.pop(waiter, None)
        if waiter.granted:
            waiter.granted = False
            self.give_back()
        waiter.woken.set()

    def __repr__(self) -> str:
        return (
            f"<Slots {self.taken} of {self.capacity} taken, {self.waiting} waiting, "
            f"{self.quarantined} quarantined>"
        )
