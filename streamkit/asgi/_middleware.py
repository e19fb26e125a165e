"""`CancellationMiddleware`: gives every request and websocket of an ASGI app a cancel token."""

from __future__ import annotations

import logging
from typing import Final, cast

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from streamkit._core import SCOPE_KEY, CancelToken, Reason, token_var, wait_held
from streamkit.errors import StreamCancelled

from ._drain import Drain
from ._owner import Owner
from ._request_owner import RequestOwner
from ._socket_owner import ClientGone, SocketOwner
from ._sweeper import Sweeper

logger = logging.getLogger("streamkit.asgi")

LOSS_BOUND: Final = 10.0  # seconds; what a live client on a bad link may be silent for
LEAST_BOUND: Final = 3.0
# seconds. The kernel counts in whole ones, and two questions to a silent client have to fit in.
HELD_LIMIT: Final = 10.0  # seconds that aborts in flight may take when the server goes down
LISTENING_VERSION: Final = "2.3"
# From ASGI 2.4 on Starlette stops listening for the disconnect and waits for send() to raise. A
# stream that waits for its first token sends nothing, so it would never hear of it (measured).


class CancellationMiddleware:
    """Owns each request's ``receive()`` and cancels its token when nobody listens any more.

    A websocket is a request, too: its token lives as long as the connection.

    Install it outermost: ``app.add_middleware(CancellationMiddleware)`` as the last one added, or
    ``app = CancellationMiddleware(app)``. Any ASGI app and server will do.

    Args:
        app: The app below.
        loss_bound: Seconds after which a client is gone that neither leaves nor is there: its host
            has vanished, and no packet comes of it (seen where the connection can be reached:
            uvicorn on Linux), or it reads nothing. At least 3.
        drain_grace: Seconds that running requests may go on after SIGTERM before they are cancelled
            with reason ``drain``. Where the process handles signals itself, give None.
        write_stall: Seconds that one ``send()`` may be blocked before the client counts as one that
            reads nothing; None takes them from ``loss_bound``.

    Raises:
        ValueError: ``loss_bound`` is less than 3.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        loss_bound: float = LOSS_BOUND,
        drain_grace: float | None = 25.0,  # Kubernetes kills 30 s after SIGTERM
        write_stall: float | None = None,
    ) -> None:
        if loss_bound < LEAST_BOUND:
            raise ValueError(
                f"loss_bound is {loss_bound:g} s; less than {LEAST_BOUND:g} s cannot be held, "
                "because the kernel counts in whole seconds"
            )
        self.app = app
        self.live: dict[Owner, None] = {}
        self.sweeper: Sweeper = Sweeper(self.live, loss_bound=loss_bound, write_stall=write_stall)
        self.drain: Drain = Drain(self, drain_grace)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            owner = RequestOwner(scope, receive, send)
            asgi = _listening(scope.get("asgi", {}))
            await self._serve(owner, {**scope, "asgi": asgi, SCOPE_KEY: owner})
        elif scope["type"] == "websocket":
            socket = SocketOwner(scope, receive, send)
            await self._serve(socket, {**scope, SCOPE_KEY: socket})
        elif scope["type"] == "lifespan":
            await self.drain.lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def cancel_all(self, reason: Reason, detail: str = "") -> int:
        """Cancel every live request; return how many it hit."""
        return sum(request.source.cancel(reason, detail) for request in list(self.live))

    async def wait_aborts(self, timeout: float = HELD_LIMIT) -> None:
        """Wait until every abort that was started has ended; log what has not."""
        if left := await wait_held(timeout):
            logger.error("still going on after %.3g s at shutdown: %s", timeout, ", ".join(left))

    async def _serve(self, owner: Owner, scope: Scope) -> None:
        self.live[owner] = None
        self.sweeper.wake()
        owner.start()
        outer = token_var.set(owner.token)
        try:
            await self.app(scope, owner.receive, owner.send)
        except Exception as error:
            cut = _cut_short(error, owner.token)
            if cut is None:
                raise
            await self._answer(owner, cut)  # noqa: ASYNC120 - an outer cancel goes first
        except anyio.get_cancelled_exc_class() as error:
            owner.source.cancel(*_who_cancelled(error))
            raise
        else:
            if owner.token.cancelled:
                await self._answer(owner, None)
        finally:
            token_var.reset(outer)
            owner.stop()
            del self.live[owner]

    async def _answer(self, owner: Owner, error: Exception | None) -> None:
        """Say why there is no answer, where somebody can still hear it."""
        if owner.gone:
            await owner.dismiss()
            return
        cancellation = owner.token.cancellation
        if cancellation is None and isinstance(error, StreamCancelled):
            cancellation = error.cancellation  # only a stream of the request was cancelled
        if cancellation is not None:
            await owner.explain(cancellation)


def _cut_short(error: Exception, token: CancelToken) -> Exception | None:
    """The cancel or the disconnect behind an error, wrapped by task groups or not; else None."""
    if isinstance(error, StreamCancelled | ClientDisconnect | ClientGone):
        return error
    if isinstance(error, WebSocketDisconnect):
        return error if token.cancelled else None  # apps raise it on their own, too
    if not isinstance(error, ExceptionGroup):
        return None
    inner = [_cut_short(one, token) for one in cast("ExceptionGroup[Exception]", error).exceptions]
    return inner[0] if all(inner) else None


def _listening(asgi: dict[str, str]) -> dict[str, str]:
    known = asgi.get("spec_version", "2.0") <= LISTENING_VERSION
    return asgi if known else {**asgi, "spec_version": LISTENING_VERSION}


def _who_cancelled(error: BaseException) -> tuple[Reason, str]:
    """Tell a server's shutdown from a scope around us; servers cancel natively, anyio says so."""
    if str(error).startswith("Cancelled via cancel scope"):
        return Reason.REQUESTED, "a cancel scope around the app was cancelled"
    return Reason.DRAIN, "the server cancelled the request's task"
