"""The owner of a request: the one reader of its messages, which serves everybody else."""

from __future__ import annotations

from collections import deque
from collections.abc import MutableMapping
from typing import Any, Final

import anyio
import anyio.lowlevel
from starlette.types import Message, Receive, Scope, Send

from streamkit._core import Cancellation, Interrupted, Phase, Reason
from streamkit.streams import close_orphans

from ._owner import READ_AHEAD, Owner, means_closed
from ._problems import STATUS, cancelled_problem

_DISCONNECT: Final[Message] = {"type": "http.disconnect"}


class RequestOwner(Owner):
    """One HTTP exchange.

    Attributes:
        response_started: Whether the status line has been handed to the server.
        response_complete: Whether the last piece of the body has been.
    """

    __slots__ = (
        "_body_read",
        "_buffered",
        "_hushed",
        "_more",
        "_piece",
        "response_complete",
        "response_started",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.source.phase = Phase.READING
        self.response_started = False
        self.response_complete = False
        self._piece: Message | None = None  # the next one for the app
        self._more: deque[Message] | None = None  # mostly, there is but one piece
        self._buffered = 0
        self._body_read = False
        self._hushed = False  # the app's answer is held back

    @property
    def settled(self) -> bool:
        """A last piece that is still being sent can be stuck as any other."""
        return self.token.cancelled or (self.response_complete and self.sending_since is None)

    # -- towards the server --------------------------------------------------------------------

    async def _pump(self) -> None:
        if _expects_continue(self.scope) and self._news is None:
            # Reading makes the server say "100 Continue": that word is the app's to give.
            # (Where it waits already, it has: an app's first step may come before ours.)
            await self._wait_wanted()
        while True:
            while self._buffered >= READ_AHEAD:
                await self._wait_wanted()
            # Not a coroutine function on every server (granian), but awaitable on all.
            message = await self._server_receive()
            if message["type"] == "http.disconnect":
                self._disconnected()
                return
            self._push(message)

    def _disconnected(self) -> None:
        """Servers say "the response is complete" and "the client has gone" in the same words."""
        if self.response_complete:
            self.source.finish()
            self._tell_app()
            return
        self.source.cancel(Reason.CLIENT_DISCONNECT, "the server reported a disconnect")

    def _push(self, message: Message) -> None:
        if self._body_read:
            return
        self._body_read = not message.get("more_body", False)
        self._buffered += len(message.get("body", b""))
        if self._piece is None:
            self._piece = message
        else:
            self._more = self._more or deque()
            self._more.append(message)
        self._tell_app()

    # -- towards the app -----------------------------------------------------------------------

    async def receive(self) -> MutableMapping[str, Any]:
        """What the app sees instead of the server's ``receive()``; any number of callers.

        The body once, then ``http.disconnect``, again and again and without suspending once the
        request is over, so that ``is_disconnected()`` can see it.

        Cancellation:
            No message is lost.
        """
        while not (self.token.cancelled or self.response_complete):
            if self._piece is not None:
                # is_disconnected() asks in a cancelled scope, and would drop what it got.
                await anyio.lowlevel.checkpoint_if_cancelled()
                if (message := self._take()) is not None:
                    return message
                continue
            self._want()
            await self._wait_news()
        return dict(_DISCONNECT)

    def _take(self) -> Message | None:
        message = self._piece
        if message is None:  # another reader was quicker
            return None
        self._piece = self._more.popleft() if self._more else None
        self._buffered -= len(message.get("body", b""))
        self._want()
        return message

    def _want(self) -> None:
        if self._wanted is not None and self._buffered < READ_AHEAD:
            self._wanted.set()

    async def send(self, message: Message) -> None:
        """What the app sees instead of the server's ``send()``.

        After the client has gone it does nothing, as servers do, but it lets other tasks run and
        closes what the sending task left suspended.
        """
        if self.token.cancelled and self._is_idle(message):
            await self._drop()
            return
        self._note(message)
        try:
            if (rest := self._begin_send(message)) is not None:
                await rest
        except anyio.get_cancelled_exc_class():
            if self.token.cancelled:
                await close_orphans()  # noqa: ASYNC102 - it shields and limits itself
            raise
        except (Interrupted, OSError, RuntimeError) as error:
            await self._not_sent(error)
        if self.response_complete:
            self._tell_app()

    def _is_idle(self, message: Message) -> bool:
        """Whether to say it is idle, now that the request was cancelled.

        Nobody may be there. Or it belongs to a 500 that the app made of the cancel, and the
        middleware says why: Starlette's outermost layer, and that of each mounted app, answers 500
        to whatever is raised before it reaches a middleware around that app.
        """
        why = self.token.cancellation
        if message["type"] == "http.response.start" and why is not None:
            self._hushed = message["status"] == 500 and STATUS[why.reason] != 500
        return self.gone or self._hushed

    def _note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.response_started = True
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            # Before it is forwarded: the disconnect that follows is not the client's doing.
            self.response_complete = True

    async def _not_sent(self, error: Exception) -> None:
        if not means_closed(error):
            raise error
        if not isinstance(error, Interrupted):
            self.response_complete = False
            self.source.cancel(Reason.CLIENT_DISCONNECT, f"sending failed: {error}")
        await self._drop()

    async def dismiss(self) -> None:
        """Give the server an answer that nobody will read.

        Without one, a server that does not know of the disconnect (a pipelined request's) makes a
        500 of its own, logs it as an error, and fails at writing it to a closed connection.

        Not over HTTP/2: there is no pipelining, so that every server knows, and hypercorn would
        wait for ever until an answer has gone out over a connection that is no more (measured).
        """
        if self.response_started or self.scope.get("http_version") == "2":
            return
        start: Message = {"type": "http.response.start", "status": 499, "headers": []}
        try:  # suppress() is three calls more, for each client that leaves
            await self._server_send(start)
            await self._server_send({"type": "http.response.body", "body": b""})
        except (OSError, RuntimeError):
            pass

    async def explain(self, cancellation: Cancellation) -> None:
        """Answer with the status that fits.

        After the first byte nothing can be said: the response then stays incomplete, which every
        server turns into a connection that ends un-cleanly.
        """
        if not self.response_started:
            await cancelled_problem(cancellation)(self.scope, self.receive, self.send)

    def __repr__(self) -> str:
        state = (
            "complete"
            if self.response_complete
            else "streaming"
            if self.response_started
            else "open"
        )
        return f"<RequestOwner {self.scope.get('path')} {state} {self.token!r}>"


def _expects_continue(scope: Scope) -> bool:
    for name, _ in scope["headers"]:  # noqa: SIM110 - half the time of any(), for each request
        if name == b"expect":
            return True
    return False
