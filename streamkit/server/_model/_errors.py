"""Errors of a model class as clients of Truss know them: `{"error": …}` and two headers."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from types import TracebackType
from typing import Final, Self, cast

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from streamkit.asgi import STATUS, error_event
from streamkit.errors import BadPayload, RequestRefused, StreamCancelled, UsageBug
from streamkit.runner._model import ModelCall, dump_json

logger = logging.getLogger("streamkit.server")

NOT_READY: Final = "Model with name model is not ready."  # Truss calls each of them so
MODEL_FAILED: Final = "Internal Server Error (in model/chainlet)."
NO_BODY: Final = frozenset({204, 304})
_OF_THE_BODY: Final = frozenset(
    {"content-encoding", "content-length", "content-type", "transfer-encoding"}
)
_RETRY_AFTER: Final = {"retry-after": "1"}
_OURS: Final = ("streamkit.", "anyio.", "starlette.", "threading")


class Code(IntEnum):
    """Whose fault it was, as the header ``x-baseten-error-code`` says it."""

    SERVER = 500
    MODEL = 600
    CLIENT = 700


class ClientError(Exception):
    """The request is wrong, and no work of the model's was begun."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class ModelBroke(Exception):
    """The model did what none may, ``__cause__`` where; it is answered as any error of its."""

    @classmethod
    def by(cls, error: BaseException) -> Self:
        """It raised what ends a task, or a process."""
        match error:
            case SystemExit():
                return cls(f"it called sys.exit({error.code!r})")
            case asyncio.CancelledError():
                return cls("it let a CancelledError out that nobody had sent")
            case _:
                return cls(f"it raised {type(error).__name__}")


def as_failure(error: BaseException) -> Exception | None:
    """What of an error is the model's failure; None where the task itself is ended by it."""
    match error:
        case Exception():
            return error
        case asyncio.CancelledError():
            task = asyncio.current_task()
            # Only a server that shuts down cancels this task; our own cancels end its waits.
            return None if task is None or task.cancelling() else ModelBroke.by(error)
        case GeneratorExit():  # a loop that drops its tasks throws it into each of them
            return None
        case _:  # asyncio would end the server with some of these
            return ModelBroke.by(error)


class NoForm(Exception):
    """What the model returned has no form that can be sent; ``__cause__`` says why."""


def error_headers(code: Code) -> dict[str, str]:
    """The two headers that each of Truss's errors has."""
    return {"x-baseten-error-source": "04", "x-baseten-error-code": str(int(code))}


def method_missing(name: str) -> ClientError:
    """The path is that of a method which this model does not have."""
    return ClientError(404, f"`{name}` must only be called if model has it.")


def not_ready() -> RequestRefused:
    """The model is loading, or does not take requests any more."""
    return RequestRefused(NOT_READY, retry_after=1.0, status=503)


def answer_to(error: Exception) -> Response:
    """What the client is told of it; the innards of the model's own errors stay inside.

    Raises:
        NoForm: The model raised an ``HTTPException`` with headers that are none.
    """
    match error:
        case HTTPException():
            return _raised_by_model(error)
        case ClientError():
            return _answer(error.status, str(error), Code.CLIENT, error.headers)
        case BadPayload():
            return _answer(400, str(error), Code.CLIENT)
        case RequestRefused():
            headers = {"retry-after": str(math.ceil(error.retry_after))}
            return _answer(error.status, str(error), Code.MODEL, headers)
        case StreamCancelled():
            status = STATUS[error.cancellation.reason]
            said = error_event(error)["error"]["message"]
            return _answer(status, said, Code.MODEL, _RETRY_AFTER if status == 503 else None)
        case NoForm(__cause__=cause):
            said = f"Unhandled exception: {type(cause).__name__}: {cause}"
            return _answer(500, said, Code.SERVER)
        case _:
            return _answer(500, MODEL_FAILED, Code.MODEL)


def log_failure(error: Exception, request_id: str) -> None:
    """Say once what broke, where the model's author will look for it."""
    match error:
        case StreamCancelled() | RequestRefused() | ClientError() | BadPayload():
            pass
        case ClientDisconnect():
            pass
        case HTTPException(status_code=int(status)) if status < 500:  # an answer, and no failure
            logger.info("request %s: the model answered %d%s", request_id, status, _place(error))
        case UsageBug() if _own_frames(error) is None:  # its message says all of it
            logger.error("request %s failed: %s", request_id, error)
        case NoForm(__cause__=cause):
            logger.error(
                "request %s failed: what the model returned cannot be sent: %s", request_id, cause
            )
        case ModelBroke(__cause__=BaseException() as cause):
            logger.error(
                "request %s failed in the model: %s", request_id, error, exc_info=_told(cause)
            )
        case _:
            logger.error("request %s failed in the model", request_id, exc_info=_told(error))


def is_word_of_cancel(error: Exception) -> bool:
    """Whether code that was cut short says so with it, and nothing else."""
    return isinstance(error, StreamCancelled | ClientDisconnect | HTTPException)


def raise_cancelled(
    error: Exception, call: ModelCall, is_word: Callable[[Exception], bool] = is_word_of_cancel
) -> None:
    """What a model raises when it was cut short is no failure, however it looks.

    Args:
        error: What it raised.
        call: Its request; nothing happens where that was not cut short.
        is_word: Whether an error says so, and nothing else; anything besides is logged.

    Raises:
        StreamCancelled: It was cut short.
    """
    cause = call.token.cancellation
    if cause is None or isinstance(error, StreamCancelled):
        return
    if not all(is_word(each) for each in _leaves(error)):
        logger.warning(
            "request %s: the model failed after it was told to stop", call.id, exc_info=error
        )
    raise StreamCancelled(cause) from error


def answer_in(error: Exception) -> HTTPException | None:
    """The ``HTTPException`` that task groups have wrapped on its way out, if it is all there is."""
    first, *others = _leaves(error)
    wrapped = first is not error and not others
    return first if wrapped and isinstance(first, HTTPException) else None


def _leaves(error: Exception) -> Iterator[Exception]:
    if not isinstance(error, ExceptionGroup):
        yield error
        return
    for inner in cast("ExceptionGroup[Exception]", error).exceptions:
        yield from _leaves(inner)


def _raised_by_model(error: HTTPException) -> Response:
    try:
        # A model that hands on another server's error hands on what described that one's body.
        headers = {
            name: value
            for name, value in (error.headers or {}).items()
            if name.lower() not in _OF_THE_BODY
        }
        if error.status_code in NO_BODY:
            headers = {**error_headers(Code.MODEL), **headers}
            return Response(status_code=error.status_code, headers=headers)
        return _answer(error.status_code, error.detail, Code.MODEL, headers)
    except (AttributeError, TypeError, UnicodeEncodeError) as wrong:  # headers that are none
        raise NoForm from wrong


def _answer(
    status: int, said: object, code: Code, headers: Mapping[str, str] | None = None
) -> Response:
    try:
        content = dump_json({"error": said})
    except (TypeError, ValueError):  # a detail that JSON has no form for
        content = dump_json({"error": str(said)})
    return Response(
        content,
        status,
        headers={**error_headers(code), **(headers or {})},
        media_type="application/json",
    )


def _told(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """For a log: without our own lines above the model's."""
    return type(error), error, _own_frames(error) or error.__traceback__


def _own_frames(error: BaseException) -> TracebackType | None:
    """The traceback from the first line on that is the model's; None if there is none."""
    frames = error.__traceback__
    while frames is not None and _is_ours(frames):
        frames = frames.tb_next
    return frames


def _is_ours(frames: TracebackType) -> bool:
    return str(frames.tb_frame.f_globals.get("__name__", "")).startswith(_OURS)


def _place(error: BaseException) -> str:
    frames = _own_frames(error)
    if frames is None:
        return ""
    return f" in {frames.tb_frame.f_code.co_filename}, line {frames.tb_lineno}"
