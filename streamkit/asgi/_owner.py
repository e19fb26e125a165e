"""The owner of `receive()`: the one reader of a request's messages, which serves everybody else."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Final

import anyio
import anyio.lowlevel
from starlette.types import Message, Receive, Scope, Send

from streamkit._core import (
    Cancellation,
    CancelSource,
    CancelToken,
    Interrupted,
    Loop,
    Reason,
    current_loop,
)
from streamkit.streams import close_orphans

from ._problems import STATUS
from ._transport import left_unseen, transport_of

READ_AHEAD: Final = 1 << 20
# bytes of the body that are read before the app asks; more than the longest prompts have, because
# behind a body that nobody reads most servers cannot see their client leave (measured)

GONE: Final = frozenset({Reason.CLIENT_DISCONNECT, Reason.WRITE_STALLED})
"""Reasons after which nobody reads what we send."""

_DISCONNECT: Final[Message] = {"type": "http.disconnect"}


class RequestOwner:
    """One HTTP exchange between server and app, as both see it through us.

    It is the only caller of the server's ``receive()``: some servers deliver the one
    ``http.disconnect`` to whoever asks first and leave all others waiting for ever, and one of them
    answers two callers with a disconnect that never was (measured; ``docs/reference/servers.md``).
    Everybody else, Starlette's listeners and the user's ``is_disconnected()`` among them, asks us.

    It lies in the scope under ``SCOPE_KEY``, out of reach of middlewares that wrap ``receive``.

    Attributes:
        source: Cancels the request.
        token: The request's cancel token.
        response_started: Whether the status line has been handed to the server.
        response_complete: Whether the last piece of the body has been.
        sending_since: The instant at which the ``send()`` that is running began, or None.
    """

    __slots__ = (
        "_body_read",
        "_buffered",
        "_hushed",
        "_interrupter",
        "_loop",
        "_news",
        "_pieces",
        "_pump_scope",
        "_server_receive",
        "_server_send",
        "_wanted",
        "response_complete",
        "response_started",
        "scope",
        "sending_since",
        "source",
        "token",
        "transport",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._server_receive = receive
        self._server_send = send
        self._loop: Loop = current_loop()
        self.source = CancelSource()
        self.token: CancelToken = self.source.token
        self.response_started = False
        self.response_complete = False
        self.sending_since: float | None = None
        self.transport = transport_of(receive)
        self._interrupter = self._loop.interrupter()
        self._pieces: deque[Message] = deque()
        self._buffered = 0
        self._body_read = False
        self._hushed = False  # the app's answer is held back
        self._news: anyio.Event | None = None  # the app waits for a message
        self._wanted: anyio.Event | None = None  # the pump waits for the app
        self._pump_scope = anyio.CancelScope()
        self.token.add_listener(self._cancelled)

    @property
    def gone(self) -> bool:
        """Whether nobody reads what we send."""
        cancellation = self.token.cancellation
        return cancellation is not None and cancellation.reason in GONE

    # -- towards the server --------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read; :meth:`stop` ends it."""
        self._loop.spawn(self._pump, "streamkit owner of receive")

    def stop(self) -> None:
        """The app has returned: read no more, and have nothing cancelled on its behalf."""
        self._pump_scope.cancel()
        self.source.finish()

    async def _pump(self) -> None:
        with self._pump_scope:
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
        self._pieces.append(message)
        self._tell_app()

    async def _wait_wanted(self) -> None:
        self._wanted = anyio.Event()
        await self._wanted.wait()

    # -- towards the app -----------------------------------------------------------------------

    async def receive(self) -> MutableMapping[str, Any]:
        """What the app sees instead of the server's ``receive()``; any number of callers.

        The body once, then ``http.disconnect``, again and again and without suspending once the
        request is over, so that ``is_disconnected()`` can see it.

        Cancellation:
            No message is lost.
        """
        while not (self.token.cancelled or self.response_complete):
            if self._pieces:
                # Before taking it: is_disconnected() asks in a cancelled scope, and would drop it.
                await anyio.lowlevel.checkpoint()
                if self._pieces:
                    return self._take()
                continue
            if self._news is None:
                self._news = anyio.Event()
            self._want()
            await self._news.wait()
        return dict(_DISCONNECT)

    def _take(self) -> Message:
        message = self._pieces.popleft()
        self._buffered -= len(message.get("body", b""))
        self._want()
        return message

    def _want(self) -> None:
        if self._wanted is not None and self._buffered < READ_AHEAD:
            self._wanted.set()

    def _tell_app(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set()

    def _cancelled(self, _: Cancellation) -> None:
        self._tell_app()
        if self.gone:
            # A send() that is blocked on a client which left is never released by some servers.
            self._interrupter.interrupt()

    async def send(self, message: Message) -> None:
        """What the app sees instead of the server's ``send()``.

        After the client has gone it does nothing, as servers do, but it lets other tasks run and
        closes what the sending task left suspended.
        """
        if self.gone or self._is_hushed(message):
            await self._drop()
            return
        self._note(message)
        try:
            await self._forward(message)
        except anyio.get_cancelled_exc_class():
            if self.token.cancelled:
                await close_orphans()  # noqa: ASYNC102 - it shields and limits itself
            raise
        except (Interrupted, OSError, RuntimeError) as error:
            if not _means_closed(error):
                raise
            if not isinstance(error, Interrupted):
                self._send_failed(error)
            await self._drop()
        if self.response_complete:
            self._tell_app()

    def _is_hushed(self, message: Message) -> bool:
        """Whether this belongs to a 500 that the app made of a cancel: the middleware says why.

        Starlette's outermost layer, and that of each mounted app, answers 500 to whatever is
        raised before it reaches a middleware around that app.
        """
        if message["type"] == "http.response.start":
            why = self.token.cancellation
            crashed = message["status"] == 500
            self._hushed = crashed and why is not None and STATUS[why.reason] != 500
        return self._hushed

    def _note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.response_started = True
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            # Before it is forwarded: the disconnect that follows is not the client's doing.
            self.response_complete = True

    async def _forward(self, message: Message) -> None:
        if self.sending_since is not None:  # a second task sends beside it: it has the interrupter
            await self._server_send(message)
            return
        self.sending_since = self._loop.now()
        try:
            await self._interrupter.step(self._server_send(message))
        finally:
            self.sending_since = None

    def _send_failed(self, error: Exception) -> None:
        self.response_complete = False
        self.source.cancel(Reason.CLIENT_DISCONNECT, f"sending failed: {error}")

    async def _drop(self) -> None:
        await close_orphans()
        await anyio.lowlevel.checkpoint()

    async def dismiss(self) -> None:
        """Give the server an answer that nobody will read.

        Without one, a server that does not know of the disconnect (a pipelined request's) makes a
        500 of its own, logs it as an error, and fails at writing it to a closed connection.
        """
        if self.response_started:
            return
        start: Message = {"type": "http.response.start", "status": 499, "headers": []}
        with contextlib.suppress(OSError, RuntimeError):
            await self._server_send(start)
            await self._server_send({"type": "http.response.body", "body": b""})

    # -- what nobody reports -------------------------------------------------------------------

    def check(self, write_stall: float) -> None:
        """Look for what no event tells: a write that is stuck, a connection that closed unseen."""
        if self.token.cancelled or (self.response_complete and self.sending_since is None):
            return  # a last piece that is still being sent can be stuck as any other
        blocked = 0.0 if self.sending_since is None else self._loop.now() - self.sending_since
        if blocked >= write_stall:
            self.source.cancel(
                Reason.WRITE_STALLED,
                f"one write has been blocked for {blocked:.3g} s (limit {write_stall:.3g} s)",
            )
        elif seen := left_unseen(self.transport):
            self.source.cancel(Reason.CLIENT_DISCONNECT, seen)
        else:
            return
        if blocked and self.transport is not None:
            self.transport.abort()  # else it waits for ever to send what it holds (measured)

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
    return any(name == b"expect" for name, _ in scope["headers"])


def _means_closed(error: Exception) -> bool:
    """Whether a ``send()`` that failed with this means that nobody is there any more.

    OSError is what ASGI 2.4 asks of servers; uvloop's transports raise RuntimeError with "closed"
    in it (measured with a pipelined request).
    """
    return not isinstance(error, RuntimeError) or "closed" in str(error)
