"""`EngineRunner`: one engine, many requests, and what each of them is doing at any moment."""

from __future__ import annotations

import logging

import anyio

from streamkit._core import CancelToken, Reason, current_token
from streamkit.engines import Engine

from ._account import Account, Totals
from ._admission import MAX_QUEUED, Admission
from ._call import Call, OnClosed
from ._inflight import REMEMBERED, CancelOutcome, InFlight
from ._ledger import Ledger

logger = logging.getLogger("streamkit.runner")

CLOSE_LIMIT = 30.0  # seconds; proofs of stop take three at most, this is the net under them


class EngineRunner:
    """Requests to one engine: who may start, what is in flight, how each ended.

    ::

        with runner.accept(token=token) as call:
            call.admit(GenerationRequest(prompt="…"))
            async for text in call.stream():
                ...
            await call.complete()

    Args:
        engine: What generates; :meth:`aclose` closes it.
        max_queued: Requests that may wait beyond the engine's slots.
        request_timeout: Seconds after which a request is cancelled with reason ``deadline``; None
            for no limit.
        remembered: Ended requests that can be looked up.

    Attributes:
        draining: Whether new requests are refused because the server is going down.
    """

    __slots__ = (
        "_grace",
        "_request_timeout",
        "admission",
        "draining",
        "engine",
        "in_flight",
        "ledger",
    )

    def __init__(
        self,
        engine: Engine,
        *,
        max_queued: int = MAX_QUEUED,
        request_timeout: float | None = None,
        remembered: int = REMEMBERED,
    ) -> None:
        if max_queued < 0:
            raise ValueError(f"max_queued must be 0 or more, got {max_queued}")
        if request_timeout is not None and request_timeout <= 0:
            raise ValueError(f"request_timeout must be above 0 s or None, got {request_timeout}")
        self.engine: Engine = engine
        self.ledger: Ledger = Ledger()
        self.in_flight: InFlight = InFlight(remembered)
        self.admission: Admission = Admission(engine, max_queued)
        self.draining: bool = False
        self._request_timeout = request_timeout
        self._grace: anyio.CancelScope | None = None

    # -- one request ---------------------------------------------------------------------------

    def accept(
        self,
        *,
        request_id: str | None = None,
        token: CancelToken | None = None,
        on_closed: OnClosed | None = None,
    ) -> Call:
        """A request has arrived: open its books.

        Args:
            request_id: Its id if that is valid and free, else it gets a new one.
            token: The cancel token it hangs on; None takes ``current_token()``.
            on_closed: Called once with its account, when its books were closed or it was refused.
        """
        free_id = self.in_flight.choose_id(request_id)
        call = Call(self, free_id, current_token() if token is None else token, on_closed)
        if self._request_timeout is not None:
            call.source.cancel_after(self._request_timeout)
        return call

    # -- all of them ---------------------------------------------------------------------------

    def cancel(self, request_id: str, detail: str = "") -> CancelOutcome | None:
        """Cancel a request by its id; None when nobody knows it."""
        return self.in_flight.cancel(request_id, detail)

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
        """Drain without any grace, and close the engine. Idempotent.

        Cancellation:
            Shielded, and limited to 30 s.
        """
        with anyio.move_on_after(CLOSE_LIMIT, shield=True) as limit:
            await self.drain(0)
            await self.engine.aclose()
        if limit.cancelled_caught:
            logger.error(
                "closing engine %s took longer than %g s: %r", self.engine.name, CLOSE_LIMIT, self
            )

    def __repr__(self) -> str:
        return f"<EngineRunner {self.engine.name}: {self.in_flight!r} {self.admission!r}>"
