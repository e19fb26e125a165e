"""What all routes that run a served engine have in common: from arrival to the closed books."""

from __future__ import annotations

from abc import ABC, abstractmethod

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamkit._core import SCOPE_KEY, Reason
from streamkit.engines import GenerationRequest
from streamkit.runner import Call, EngineRunner, Output

from ._visit import VISIT_KEY, Visit
from .settings import Settings


class EngineRoute(ABC):
    """A route, as an ASGI app: its call lasts until the answer has been sent.

    Args:
        runner: Runs the engine.
        settings: How.
    """

    __slots__ = ("_runner", "_settings")

    def __init__(self, runner: EngineRunner, settings: Settings) -> None:
        self._runner = runner
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        visit: Visit = scope[VISIT_KEY]
        owner = scope[SCOPE_KEY]
        with self._runner.accept(
            request_id=visit.id, token=owner.token, on_closed=visit.books_closed
        ) as call:
            visit.wait_for_books(call.id)
            try:
                response = await self._answer(Request(scope, receive), call)
                await response(scope, receive, send)
            except HTTPException:
                call.refuse()
                raise
            except anyio.get_cancelled_exc_class():
                # Only a server that shuts down cancels this task; our own cancels end its waits.
                call.cancel(Reason.DRAIN, "the server cancelled the request's task")
                raise
            if owner.response_complete:
                await call.complete()

    @abstractmethod
    async def _answer(self, request: Request, call: Call) -> Response:
        """Return what answers the request."""

    def _admit(self, call: Call, requests: list[GenerationRequest]) -> Output:
        try:
            call.admit(*requests)
        except ValueError as error:  # the engine could never hold it
            raise self._refusal(error) from None
        assert call.output is not None
        return call.output

    def _refusal(self, error: ValueError) -> HTTPException:
        return HTTPException(400, str(error))
