"""The layer in which every error becomes an answer, once, with the status that fits."""

from __future__ import annotations

import difflib
import http
import logging
import math
from collections.abc import Callable, Collection
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from streamkit._core import SCOPE_KEY
from streamkit.asgi import error_event, problem
from streamkit.errors import BadPayload, EngineFailed, RequestRefused, StreamCancelled

from ._visit import VISIT_KEY, Visit

logger = logging.getLogger("streamkit.server")

_NOT_FOUND: Final = http.HTTPStatus(404).phrase  # all that the router says
_LOOKED_AT: Final = 100  # characters of an unknown path: to compare two costs their product
_TYPES: Final = {
    400: "invalid_request_error",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
}


class InvalidRequest(HTTPException):
    """The client has to send another request: the error says which field is wrong, as OpenAI's do.

    Args:
        message: What is wrong.
        param: The field, or None.
        code: OpenAI's code for it, if it has one.
        status: HTTP status.
    """

    def __init__(
        self, message: str, *, param: str | None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(status, message)
        self.param = param
        self.code = code or _TYPES[400]


class Problems:
    """Turns what the app below raises into an answer; a cancel is left to the layer above.

    Args:
        app: The layer below.
        paths: What paths there are, for who asks for another.
    """

    __slots__ = ("_app", "_paths")

    def __init__(self, app: ASGIApp, paths: Callable[[], Collection[str]]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit: Visit = scope[VISIT_KEY]
        try:
            await self._app(scope, receive, send)
        except (StreamCancelled, ClientDisconnect):
            raise
        except Exception as error:
            if not isinstance(error, HTTPException | RequestRefused | BadPayload):
                logger.exception("request %s failed", visit.id)
            if scope[SCOPE_KEY].response_started:
                return  # nothing can be said any more: the connection ends un-cleanly
            if isinstance(error, HTTPException) and error.detail == _NOT_FOUND:
                error = HTTPException(404, _no_such_path(scope["path"], self._paths()))
            await _answer_to(error)(scope, receive, send)


def _answer_to(error: Exception) -> Response:
    if isinstance(error, InvalidRequest):
        said = {"message": error.detail, "type": _TYPES[400]}
        content = {"error": {**said, "param": error.param, "code": error.code}}
        return JSONResponse(content, status_code=error.status_code)
    if isinstance(error, HTTPException):
        kind = _TYPES.get(error.status_code, "error")
        return problem(error.status_code, _text_of(error), type=kind, headers=error.headers)
    if isinstance(error, RequestRefused):
        headers = {"retry-after": str(math.ceil(error.retry_after))}
        code = "queue_full" if error.status == 429 else "not_ready"
        return problem(error.status, str(error), type="refused", code=code, headers=headers)
    if isinstance(error, BadPayload):  # the engine looked at it, and cannot take it
        return problem(400, str(error), type=_TYPES[400])
    said = error_event(error)["error"]  # in the words that a stream would end with
    if isinstance(error, EngineFailed):
        return problem(500, said["message"], type=said["type"])
    return problem(500, "the request failed; see the server's log", type=said["type"])


def _text_of(error: HTTPException) -> str:
    allowed = (error.headers or {}).get("Allow")
    if error.status_code == 405 and allowed:
        return f"this path takes {allowed}"
    return error.detail


def _no_such_path(path: str, paths: Collection[str]) -> str:
    if path in paths:
        return "this path is a websocket's, and takes no other request"
    near = difflib.get_close_matches(path[:_LOOKED_AT], paths, 1)
    hint = f"did you mean {near[0]}?" if near else "GET /v1/engine shows what is served"
    return f"there is no such path; {hint}"
