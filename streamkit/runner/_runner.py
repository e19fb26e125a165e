"""What is common to every runner: what is in flight, who may join it, and the end of it all."""

from __future__ import annotations

import logging

import anyio

from streamkit._core import Reason

from ._account import Account, Totals
from ._admission import MAX_QUEUED, Admission
from ._inflight import REMEMBERED, CancelOutcome, InFlight
from ._ledger import Ledger
from ._owned import OwnedInFlight
from ._served import Served

logger = logging.getLogger("streamkit.runner")

CLOSE_LIMIT = 30.0  # seconds; proofs of stop take three at most, this is the net under them


class Runner:
    """Requests to one engine or one model: who may start, what is in flight, how each ended.

    Args:
        served: What does the work; :meth:`aclose` closes it.
        max_queued: Requests that may wait beyond its slots.
        request_timeout: Seconds after which a request is cancelled with reason ``deadline``; None
            for no limit.
        remembered: Ended requests that can be looked up.
        admission: Decides who may start, where it is not by the slots of an engine.

    Attributes:
        draining: Whether new requests are refused because the server is going down.
    """

    __slots__ = (
        "_grace",
        "admission",
        "draining",
        "in_flight",
        "ledger",
        "request_timeout",
        "served",
    )

    def __init__(
        self,
        served: Served,
        *,
        max_queued: int = MAX_QUEUED,
        request_timeout: float | None = None,
        remembered: int = REMEMBERED,
        admission: Admission | None = None,
    ) -> None:
        if max_queued < 0:
            raise ValueError(f"max_queued must be 0 or more, got {max_queued}")
        if request_timeout is not None and request_timeout <= 0:
            raise ValueError(f"request_timeout must be above 0 s or None, got {request_timeout}")
        self.served: Served = served
        self.ledger: Ledger = Ledger()
        self.in_flight: InFlight = InFlight(remembered)
        self.admission: Admission = admission or Admission(served, max_queued)
        self.request_timeout: float | None = request_timeout
        self.draining: bool = False
        self._grace: anyio.CancelScope | None = None

    def cancel(self, request_id: str, detail: str = "") -> CancelOutcome | None:
        """Cancel a request by its id; None when nobody knows it."""
        return self.in_flight.cancel(request_id, detail)

    def give_owners(self) -> OwnedInFlight:
        """Give each request a secret from now on; nothing must have arrived."""
        assert not self.ledger.totals().received
        owned = OwnedInFlight(self.in_flight.remembered)
        self.in_flight = owned
        return owned

    def find(self, request_id: str) -> Account | None:
        """The books of a request that is in flight or has ended lately."""
        return self.in_flight.find(request_id)

    def statistics(self) -> Totals:
        """The books of all requests."""
        return self.ledger.totals()

    def not_ready(self) -> str | None:
        """Why no request would be admitted now, however few there are; None when one would."""
        return self.admission.not_ready()

    # -- the end -------------------------------------------------------------------------------

    async def drain(self, grace: float) -> None:
        """Refuse new requests, give those in flight ``grace`` seconds, cancel what is left.

        Returns when the engine has let go of each of them, or was given up. Idempotent.

        Cancellation:
            Stops waiting; new requests are still refused.
        """
        self.draining = True
        self.admission.close("the server is shutting down")
        with anyio.move_on_after(grace) as self._grace:
            await self.in_flight.wait_idle()
        if cut := self.in_flight.cancel_all(Reason.DRAIN, "the server is shutting down"):
            logger.warning("%d requests were still running after the grace of %g s", cut, grace)
        await self.in_flight.wait_idle()

    def cut_grace(self) -> None:
        """End the grace of a drain that is going on: cancel what is left, now."""
        if self._grace is not None:
            self._grace.cancel()

    async def aclose(self) -> None:
        """Drain without any grace, and close what is served. Idempotent.

        Cancellation:
            Shielded, and limited to 30 s.
        """
        with anyio.move_on_after(CLOSE_LIMIT, shield=True) as limit:
            await self.drain(0)
            await self.close_served()
        if limit.cancelled_caught:
            logger.error(
                "closing %s took longer than %g s: %r", self.served.name, CLOSE_LIMIT, self
            )

    async def close_served(self) -> None:
        """Close what is served; nothing is in flight any more."""

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name} {self.served.name}: {self.in_flight!r} {self.admission!r}>"
