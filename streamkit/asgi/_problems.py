"""Errors as the client sees them: a status before the first byte, a terminal event after it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from streamkit._core import Cancellation, Reason
from streamkit.errors import EngineFailed, RequestRefused, StreamCancelled

STATUS: Final[Mapping[Reason, int]] = MappingProxyType(
    {
        Reason.CLIENT_DISCONNECT: 499,
        Reason.WRITE_STALLED: 499,
        Reason.REQUESTED: 499,
        Reason.DEADLINE: 504,
        Reason.DRAIN: 503,
        Reason.SHED: 503,
        Reason.SUPERSEDED: 409,
        Reason.ENGINE_FAILED: 500,
        Reason.ERROR: 500,
    }
)
"""The answer to a cancelled request, while there can be one; 499 is nginx's "client closed"."""

_RETRY_AFTER: Final = 1  # seconds; a drain or a shed load is over soon, on another replica at once

_MESSAGES: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.CLIENT_DISCONNECT: "the client closed the connection",
        Reason.WRITE_STALLED: "the client stopped reading",
        Reason.REQUESTED: "the request was cancelled",
        Reason.DEADLINE: "the request did not finish before its deadline",
        Reason.DRAIN: "the server is shutting down; try again",
        Reason.SHED: "the server dropped the request to shed load; try again",
        Reason.SUPERSEDED: "a newer request took its place",
        Reason.ENGINE_FAILED: "the engine failed",
        Reason.ERROR: "the request failed",
    }
)


def problem(
    status: int,
    message: str,
    *,
    type: str,  # noqa: A002 - OpenAI's word for it
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error in OpenAI's shape: ``{"error": {"message", "type", "code"}}``."""
    content = {"error": {"message": message, "type": type, "code": code or type}}
    return JSONResponse(content, status_code=status, headers=headers)


def cancelled_problem(cancellation: Cancellation) -> JSONResponse:
    """What a request is answered that was cancelled before its first byte."""
    reason = cancellation.reason
    status = STATUS[reason]
    headers = {"retry-after": str(_RETRY_AFTER)} if status == 503 else None
    return problem(status, _MESSAGES[reason], type="cancelled", code=reason, headers=headers)


def error_event(error: BaseException) -> dict[str, Any]:
    """The data of a stream's last event when it broke; the innards of an error stay inside."""
    if isinstance(error, StreamCancelled):
        reason = error.cancellation.reason
        return {"error": {"type": "cancelled", "message": _MESSAGES[reason], "reason": reason}}
    if isinstance(error, RequestRefused):
        return {"error": {"type": "refused", "message": str(error)}}
    if isinstance(error, EngineFailed):
        return {"error": {"type": "engine_failed", "message": _MESSAGES[Reason.ENGINE_FAILED]}}
    if isinstance(error, HTTPException):  # raised to be told; its status came too late
        said = {"message": str(error.detail), "status": error.status_code}
        return {"error": {"type": "http_error", **said}}
    return {
        "error": {"type": "internal_error", "message": "the stream broke off; see the server's log"}
    }
