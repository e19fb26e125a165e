"""The websocket of a model class: accepted, run, closed with the code that says how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio.lowlevel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from streamkit._core import SCOPE_KEY, Reason
from streamkit.errors import RequestRefused, StreamCancelled
from streamkit.runner._model import ModelCall, ModelRunner
from streamkit.server._visit import VISIT_KEY, Visit

from ._errors import (
    MODEL_FAILED,
    ModelBroke,
    answer_to,
    as_failure,
    log_failure,
    not_ready,
    raise_cancelled,
)

logger = logging.getLogger("streamkit.server")

Ask = Callable[[], Awaitable[bool]]

PATH: Final = "/v1/websocket"
METHOD: Final = "websocket"

_DONE: Final = 1000
_UNSUPPORTED: Final = 1003
_BROKE: Final = 1011
# The words that clients of Truss know.
_NO_WEBSOCKET: Final = "WebSocket is not implemented on this deployment."
_CAN_DENY: Final = "websocket.http.response"


class ModelSocket:
    """The route, as an ASGI app: its call lasts as long as the websocket.

    Args:
        runner: Runs the model.
    """

    __slots__ = ("_runner",)

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI.

        Raises:
            StreamCancelled: It was cut short; the middleware closes it with the code that fits.
        """
        visit: Visit = scope[VISIT_KEY]
        call = self._runner.accept(
            request_id=visit.id, token=scope[SCOPE_KEY].token, on_closed=visit.books_closed
        )
        visit.wait_for_books(call.id)
        websocket = ModelWebSocket(scope, receive, send, call)
        try:
            with call:
                await self._serve(websocket, call)
        except StreamCancelled:
            raise
        except _Missing:
            logger.error(_NO_WEBSOCKET)  # noqa: TRY400 - it is the client's mistake
            await websocket.accept()
            await websocket.close(_UNSUPPORTED, _NO_WEBSOCKET)
        except Exception as error:  # noqa: BLE001 - told to the client, and logged
            log_failure(_as_failure(error), call.id)
            await _tell(websocket, error)

    async def _serve(self, websocket: ModelWebSocket, call: ModelCall) -> None:
        try:
            self._admit(call)
            await websocket.accept()
            with contextlib.suppress(WebSocketDisconnect):  # a model may end itself so, as on Truss
                await call.method(METHOD, websocket, None)
            call.token.raise_if_cancelled()
            call.answering()
            await _close(websocket, _DONE)
            await call.complete()
        except Exception as error:
            raise_cancelled(error, call, _is_word_of_end)
            raise
        except BaseException as error:
            if (failure := as_failure(error)) is not None:
                raise failure from error  # noqa: ASYNC104 - it was the model's own
            if isinstance(error, asyncio.CancelledError):
                call.cancel(Reason.DRAIN, "the server cancelled the websocket's task")
            raise

    def _admit(self, call: ModelCall) -> None:
        loaded = self._runner.loaded
        if loaded is None or self._runner.not_ready() is not None:
            raise not_ready()
        if loaded.methods.websocket is None:
            call.refuse()
            raise _Missing
        call.admit()


class ModelWebSocket(WebSocket):
    """What the model is given: Starlette's own, which can also be asked as a request can."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, call: ModelCall) -> None:
        # The call in place of the middleware's handle: what the model makes cancellable hangs on
        # it then.
        super().__init__({**scope, SCOPE_KEY: call}, receive, send)
        self._call = call
        self._patch: Ask | None = None

    @property
    def is_disconnected(self) -> Ask:
        """Ask whether to stop: the client left, or it was cut short otherwise, or is over.

        Engines written for Truss ask it of whatever they are given. There, a websocket could not
        be asked, and published models put a function here that always says no. It is called, and
        believed until there is something else to say: the engine is to stop all the same.
        """
        return self._ask

    @is_disconnected.setter
    def is_disconnected(self, patch: Ask) -> None:
        self._patch = patch

    async def _ask(self) -> bool:
        await anyio.lowlevel.checkpoint()
        if self._call.asked() or self._call.token.finished:
            return True
        return self._patch is not None and await self._patch()


class _Missing(Exception):
    """The model has no ``websocket``."""


async def _close(websocket: WebSocket, code: int, reason: str = "") -> None:
    """Close it, unless the model did."""
    if websocket.application_state is WebSocketState.CONNECTED:
        await websocket.close(code, reason)


async def _tell(websocket: WebSocket, error: Exception) -> None:
    if websocket.application_state is not WebSocketState.CONNECTING:
        await _close(websocket, _BROKE, MODEL_FAILED)
    elif isinstance(error, RequestRefused) and _CAN_DENY in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(answer_to(error))
    else:
        await websocket.close()  # which servers turn into a 403


def _as_failure(error: Exception) -> Exception:
    """What would be an answer elsewhere is none here."""
    if not isinstance(error, HTTPException):
        return error
    failure = ModelBroke("a websocket has no status: close it with a code instead")
    failure.__cause__ = error
    return failure


def _is_word_of_end(error: Exception) -> bool:
    """Whether it says that the websocket is over, and nothing else."""
    if isinstance(error, RuntimeError):  # Starlette's, for who goes on after it was told
        return str(error).startswith("Cannot call ")
    return isinstance(error, StreamCancelled | WebSocketDisconnect | OSError)
