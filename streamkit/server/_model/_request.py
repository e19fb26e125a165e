"""The request that a model is given: Starlette's own, which hears of every cancel at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

import anyio
import anyio.lowlevel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from streamkit._core import SCOPE_KEY, Listener
from streamkit.runner._model import ModelCall
from streamkit.server._body import read_body
from streamkit.server.settings import Settings

from ._errors import ClientError


class ModelRequest(Request):
    """One and the same object in all stages of a request.

    Its body has been read when the model gets it, so that ``await request.body()`` and ``.json()``
    answer at once. ``is_disconnected()`` and ``request.state.watch_disconnect()`` are those of
    Truss. Both speak of any cancel and not of the client alone: the model is to stop either way.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, call: ModelCall) -> None:
        # A state of its own: a server may share one among all requests. And the call in place of
        # the middleware's handle: what the model makes cancellable hangs on the call then.
        state = {
            **scope.get("state", {}),
            "request_id": call.id,
            "watch_disconnect": lambda: DisconnectWatch(call),
        }
        super().__init__({**scope, "state": state, SCOPE_KEY: call}, receive, send)
        self._call = call

    async def read(self, settings: Settings) -> bytes:
        """Read the body, and keep it for whoever asks.

        Raises:
            ClientError: It is too long, or did not come in time.
            ClientDisconnect, StreamCancelled: Nobody waits for the answer any more.
        """
        try:
            self._body = await read_body(self, settings, self._call.token)
        except HTTPException as error:
            raise ClientError(error.status_code, error.detail, error.headers) from None
        return self._body

    async def is_disconnected(self) -> bool:
        """Whether to stop: the client left, or the request was cut short otherwise, or is over.

        The one who asks gets two seconds to act on the answer before it is interrupted.
        """
        # A model may loop over this question alone, as it could on Truss: let others run.
        await anyio.lowlevel.checkpoint()
        # Finished is for who goes on asking in a task that nobody stops.
        return self._call.asked() or self._call.token.finished


class DisconnectWatch:
    """``request.state.watch_disconnect()``: an event that is set in the turn of the cancel.

    ::

        with request.state.watch_disconnect() as disconnected:         # a threading.Event
        async with request.state.watch_disconnect() as disconnected:   # an anyio.Event

    Nothing runs for it meanwhile. As with ``is_disconnected()``, the one who watches gets two
    seconds to act before it is interrupted.
    """

    __slots__ = ("_call", "_listener")

    def __init__(self, call: ModelCall) -> None:
        self._call = call
        self._listener: Listener | None = None

    def __enter__(self) -> threading.Event:
        event = threading.Event()
        self._watch(event.set)
        if self._call.token.cancelled:
            event.set()  # from a thread, the token would tell only in the loop's next turn
        return event

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._listener.remove()

    async def __aenter__(self) -> anyio.Event:
        event = anyio.Event()
        self._watch(event.set)
        return event

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def _watch(self, tell: Callable[[], object]) -> None:
        self._call.asked()

        def told(_: object) -> None:
            tell()
            self._call.asked()

        self._listener = self._call.token.add_listener(told)
