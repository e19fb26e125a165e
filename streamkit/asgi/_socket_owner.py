"""The owner of a websocket: the one reader of its messages; its client's leaving is a cancel."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

import anyio
import anyio.lowlevel
from starlette.types import Message, Receive, Scope, Send

from streamkit._core import Cancellation, Interrupted, Reason
from streamkit.streams import BREATHE_EVERY, close_orphans

from ._close_codes import farewell, why_lost
from ._owner import READ_AHEAD, Owner, means_closed
from ._problems import cancelled_problem

MESSAGES_AHEAD: Final = 1_024  # a minute of audio in small pieces, at half a kilobyte of ours each
FAREWELL_LIMIT: Final = 5.0  # seconds; who does not read cannot be told why the websocket closes

_LOST: Final[Message] = {"type": "websocket.disconnect", "code": 1006}


class ClientGone(OSError):
    """What a websocket's ``send()`` raises when nobody is there, as ASGI 2.4 asks for.

    Starlette makes a ``WebSocketDisconnect`` of it.
    """


class SocketState(Enum):
    """How far an app has come with its websocket."""

    CONNECTING = "connecting"
    OPEN = "open"
    DENYING = "denying"  # with an HTTP response
    CLOSED = "closed"  # by the app: what follows is not the client's doing


_STEPS: Final[Mapping[tuple[SocketState, str], SocketState]] = MappingProxyType(
    {
        (SocketState.CONNECTING, "websocket.accept"): SocketState.OPEN,
        (SocketState.CONNECTING, "websocket.close"): SocketState.CLOSED,
        (SocketState.CONNECTING, "websocket.http.response.start"): SocketState.DENYING,
        (SocketState.DENYING, "websocket.http.response.body"): SocketState.CLOSED,
        (SocketState.OPEN, "websocket.close"): SocketState.CLOSED,
    }
)


class SocketOwner(Owner):
    """One websocket, from its handshake to its end.

    It reads ahead, up to a bound: only who reads hears that the client has left. When the app does
    not read either, the client feels the back-pressure, and its leaving is found by the sweeper
    alone (where the connection can be reached), or when the app reads on.

    Attributes:
        state: How far the app has come.
    """

    __slots__ = (
        "_ahead",
        "_bytes_ahead",
        "_greeted",
        "_last",
        "_lost",
        "_reading_out",
        "_sends",
        "state",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.state: SocketState = SocketState.CONNECTING
        self._ahead: deque[Message] = deque()
        self._bytes_ahead = 0
        self._greeted = False  # the server has said websocket.connect, which comes first
        self._last: Message | None = None  # what the app reads after everything else
        self._lost = False  # the connection is no more
        self._sends = 0
        self._reading_out = False  # what the server still has is all that there will be

    @property
    def gone(self) -> bool:
        """Whether nobody reads what we send; also where the server itself has closed it."""
        return self._lost

    @property
    def settled(self) -> bool:
        """A close that is still being sent can be stuck as any message can."""
        return self._lost or (self.state is SocketState.CLOSED and self.sending_since is None)

    # -- towards the server --------------------------------------------------------------------

    async def _pump(self) -> None:
        while True:
            while self._is_full():
                await self._wait_wanted()
            message = await self._server_receive()
            if message["type"] == "websocket.disconnect":
                self._disconnected(message)
                return
            self._push(message)

    def _is_full(self) -> bool:
        full = self._bytes_ahead >= READ_AHEAD or len(self._ahead) >= MESSAGES_AHEAD
        return full and not self._reading_out

    def _push(self, message: Message) -> None:
        if message["type"] == "websocket.connect":
            self._greeted = True
        elif self.token.cancelled:
            return  # nobody is to begin with it
        self._ahead.append(message)
        self._bytes_ahead += _size(message)
        self._tell_app()

    def _disconnected(self, message: Message) -> None:
        if self.state is SocketState.CLOSED:
            self.source.finish()
            return
        self._last = message
        self._lose(*why_lost(message))

    def _lose(self, reason: Reason, detail: str) -> None:
        self._lost = True
        self.source.cancel(reason, detail)
        # It may have been cancelled before, for another reason; the send() is blocked all the same.
        self._interrupter.interrupt()

    def _cancelled(self, cancellation: Cancellation) -> None:
        if not self._lost:
            self._ahead = deque(m for m in self._ahead if m["type"] == "websocket.connect")
            self._bytes_ahead = 0
            self._read_on()
        if self._last is None:
            self._last = dict(_LOST) if self._lost else farewell("disconnect", cancellation)
        self._tell_app()

    def _left_unseen(self, seen: str) -> None:
        assert self.transport is not None
        if self._is_full() and self.transport.is_closing():
            self._read_out()
        else:
            super()._left_unseen(seen)

    def _read_out(self) -> None:
        """Hear from the server why the connection is closed, past the bound of the read-ahead.

        It costs nothing: a closed connection brings no more than what the server has in memory.
        """
        self._reading_out = True
        self._read_on()

    def _read_on(self) -> None:
        if self._wanted is not None and not self._is_full():
            self._wanted.set()

    # -- towards the app -----------------------------------------------------------------------

    async def receive(self) -> Message:
        """What the app sees instead of the server's ``receive()``.

        What the client sent, in order, also when it left meanwhile; then
        ``websocket.disconnect``, again and again. After a cancel for another reason than its
        leaving, ``websocket.disconnect`` follows the handshake at once.

        Cancellation:
            No message is lost. A cancel that comes with the end of the websocket does not reach
            code that waits here: it gets the disconnect, which says so in the words it expects.
        """
        while True:
            if self._ahead:
                await anyio.lowlevel.checkpoint()
                if self._ahead:
                    return self._take()
            elif (goodbye := self._goodbye()) is not None:
                await anyio.lowlevel.checkpoint()  # who asks for ever must not keep the loop
                return goodbye
            else:
                await self._park()
                if (goodbye := self._goodbye()) is not None:
                    return goodbye

    def _goodbye(self) -> Message | None:
        """The last message, for an app that has been given all others."""
        if self._last is None or self._ahead or not self._greeted:
            return None
        return dict(self._last)

    async def _park(self) -> None:
        try:
            await self._wait_news()
        except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - see receive()
            if self._goodbye() is None:
                raise

    def _take(self) -> Message:
        message = self._ahead.popleft()
        self._bytes_ahead -= _size(message)
        self._read_on()
        return message

    async def send(self, message: Message) -> None:
        """What the app sees instead of the server's ``send()``.

        Raises:
            ClientGone: Nobody is there. To close then is no error: that is what there is to do.

        Cancellation:
            As for :meth:`receive`: where the websocket is over, :class:`ClientGone` says so.
        """
        if self._lost:
            await anyio.lowlevel.checkpoint()
        elif await self._pass_on(message):
            return
        await close_orphans()
        if message["type"] != "websocket.close":
            raise ClientGone(str(self.token.cancellation))

    async def _pass_on(self, message: Message) -> bool:
        """Return whether somebody was there to the end."""
        self._note(message)
        try:
            await self._try(message)
        except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - see send()
            if not self._lost:
                if self.token.cancelled:
                    await close_orphans()  # noqa: ASYNC102 - it shields and limits itself
                raise
        return not self._lost

    async def _try(self, message: Message) -> None:
        self._sends += 1
        if not self._sends % BREATHE_EVERY:
            await anyio.lowlevel.checkpoint()  # a send() that never waits would keep us deaf
        try:
            if (rest := self._begin_send(message)) is not None:
                await rest
        except (Interrupted, OSError, RuntimeError) as error:
            if not means_closed(error):
                raise
            if not self._lost:
                await self._send_failed(error)

    def _note(self, message: Message) -> None:
        if not message.get("more_body", False):
            self.state = _STEPS.get((self.state, message["type"]), self.state)
        if self.state is SocketState.CLOSED and self._last is None:
            # Before it is forwarded: the disconnect that follows is not the client's doing.
            self._last = {"type": "websocket.disconnect", "code": message.get("code", 1000)}
            self._tell_app()

    async def _send_failed(self, error: Exception) -> None:
        """Let the server say first why: that it goes down, perhaps."""
        self._read_out()
        await anyio.lowlevel.checkpoint()
        if not self._lost and self.state is not SocketState.CLOSED:
            self._lose(Reason.CLIENT_DISCONNECT, f"sending failed: {error!r}")

    # -- at the end ----------------------------------------------------------------------------

    async def dismiss(self) -> None:
        """Refuse the handshake: a server may not know yet that nobody waits for it."""
        if self.state is SocketState.CONNECTING:
            with contextlib.suppress(OSError, RuntimeError):
                await self._server_send({"type": "websocket.close"})

    async def explain(self, cancellation: Cancellation) -> None:
        """Close with the code that fits; refuse a handshake with the status that fits."""
        with anyio.move_on_after(FAREWELL_LIMIT) as scope, contextlib.suppress(ClientGone):
            if self.state is SocketState.OPEN:
                await self.send(farewell("close", cancellation))
            elif self.state is SocketState.CONNECTING:
                await self._deny(cancellation)
        if scope.cancelled_caught and self.transport is not None:
            self.transport.abort()

    async def _deny(self, cancellation: Cancellation) -> None:
        if "websocket.http.response" in self.scope.get("extensions", {}):
            await cancelled_problem(cancellation)(self.scope, self.receive, self.send)
        else:
            await self.send({"type": "websocket.close"})  # which servers turn into a 403

    def __repr__(self) -> str:
        return f"<SocketOwner {self.scope.get('path')} {self.state.value} {self.token!r}>"


def _size(message: Message) -> int:
    return len(message.get("bytes") or b"") + len(message.get("text") or "")
