"""The routes that look and steer: requests, the engine, health and metrics."""

from __future__ import annotations

from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamkit._core import Phase
from streamkit.asgi import problem
from streamkit.runner import Account, Runner

from ._keys import Keys
from ._metrics import CONTENT_TYPE, Metrics

_SHOWN: Final = 100  # ended requests in one list, unless ?limit= asks for another number


class Inspect:
    """The routes over one runner.

    Args:
        runner: The requests and their books.
        metrics: What Prometheus reads. As the engine's books and health, it names no request, and
            is open to whoever can reach the server.
        keys: Who may ask about requests, and cancel them; None for everybody.
    """

    __slots__ = ("_keys", "_metrics", "_runner")

    def __init__(self, runner: Runner, metrics: Metrics, keys: Keys | None = None) -> None:
        self._runner = runner
        self._metrics = metrics
        self._keys = keys

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/requests", self.requests),
            Route("/v1/requests/{id}", self.request),
            Route("/v1/requests/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/engine", self.engine),
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/metrics", self.metrics),
            Route("/metrics/", self.metrics_of_truss),
        ]

    async def requests(self, request: Request) -> Response:
        """What is in flight, the oldest first, then what ended lately, the newest first."""
        if self._keys is not None:
            self._keys.require_operator(request)
        table = self._runner.in_flight
        limit = request.query_params.get("limit", str(_SHOWN))
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 10):
            raise HTTPException(400, f"limit: input should be a whole number, got {limit[:20]!r}")
        accounts = [*table.running(), *table.ended(int(limit))]
        return JSONResponse({"requests": [describe(account) for account in accounts]})

    async def request(self, request: Request) -> Response:
        """One of them."""
        account = self._runner.find(self._allowed_id(request))
        if account is None:
            raise _unknown()
        return JSONResponse(describe(account))

    async def cancel(self, request: Request) -> Response:
        """Cut one short."""
        request_id = self._allowed_id(request)
        outcome = self._runner.cancel(request_id, "asked for over HTTP")
        if outcome is None:
            raise _unknown()
        return JSONResponse({"id": request_id, "outcome": outcome})

    def _allowed_id(self, request: Request) -> str:
        request_id: str = request.path_params["id"]
        if self._keys is not None:
            self._keys.require_owner(request, request_id)
        return request_id

    async def engine(self, _: Request) -> Response:
        """The engine's own books; null for what it cannot tell."""
        engine = self._runner.served
        books = engine.statistics()
        numbers = ("slots", "running", "queued", "steps", "tokens", "quarantined", "misbehaviours")
        return JSONResponse(
            {
                "name": engine.name,
                **{name: getattr(books, name, None) for name in numbers},
                "failure": type(engine.failure).__name__ if engine.failure else None,
                "capabilities": engine.capabilities.as_json(),
            }
        )

    async def live(self, _: Request) -> Response:
        """The process works."""
        return JSONResponse({"status": "alive"})

    async def ready(self, _: Request) -> Response:
        """New requests are admitted."""
        if (why := self._runner.not_ready()) is not None:
            headers = {"retry-after": "1"}
            return problem(503, f"not ready: {why}", type="not_ready", headers=headers)
        return JSONResponse({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """What Prometheus reads."""
        return Response(self._metrics.expose(), media_type=CONTENT_TYPE)

    async def metrics_of_truss(self, request: Request) -> Response:
        """The same, at the path that scrapers of Truss were given."""
        return await self.metrics(request)


def describe(account: Account) -> dict[str, Any]:
    """One request's books, as JSON has them."""
    return {
        "id": account.id,
        "phase": account.phase,
        "arrived_at": _rounded(account.arrived_at),
        "age": _rounded(account.age),
        "tokens": account.produced,
        "prompt_tokens": account.prompt_tokens,
        "delivered": account.delivered,
        "undelivered": account.undelivered,
        "wasted": account.wasted,
        "saved": account.saved,
        "seconds": {phase: _rounded(account.seconds[phase]) for phase in _in_order(account)},
        "first_token_after": _rounded(account.first_token_after),
        "reason": account.reason,
        "detail": account.detail,
        "cancelled_in": account.cancelled_in,
        "detected_after": _rounded(account.detected_after),
        "told_after": _rounded(account.told_after),
        "proved_after": _rounded(account.proved_after),
        "proof": account.proof.word if account.proof else None,
        "steps": account.steps,
        "misbehaviour": account.misbehaviour,
    }


def _in_order(account: Account) -> list[Phase]:
    return [phase for phase in Phase if phase in account.seconds]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _unknown() -> HTTPException:
    return HTTPException(404, "no request with this id is in flight, or has ended lately")
