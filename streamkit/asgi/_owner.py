"""What requests and websockets share: one reader of `receive()`, a token, a guarded `send()`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Final

import anyio.lowlevel
from starlette.types import Message, Receive, Scope, Send

from streamkit._core import (
    Cancellation,
    CancelSource,
    CancelToken,
    Loop,
    Reason,
    Signal,
    Task,
    current_loop,
)
from streamkit.streams import close_orphans

from ._transport import ask_whether_there, left_unseen, silence_of, transport_of

READ_AHEAD: Final = 1 << 20
# bytes that are read before the app asks; more than the longest prompts have, because behind what
# nobody reads most servers cannot see their client leave (measured)

GONE: Final = frozenset({Reason.CLIENT_DISCONNECT, Reason.WRITE_STALLED})
"""Reasons after which nobody reads what we send."""


class Owner(ABC):
    """One exchange between server and app, as both see it through us.

    It is the only caller of the server's ``receive()``: some servers deliver the one disconnect to
    whoever asks first and leave all others waiting for ever, and one of them answers two callers
    with a disconnect that never was (measured; ``docs/reference/servers.md``). Everybody else asks
    us.

    It lies in the scope under ``SCOPE_KEY``, out of reach of middlewares that wrap ``receive``.

    Attributes:
        source: Cancels the exchange.
        token: Its cancel token.
        sending_since: The instant at which the ``send()`` that is running began, or None.
        transport: The connection below, where it can be reached.
    """

    __slots__ = (
        "_interrupter",
        "_look_at",
        "_loop",
        "_news",
        "_reader",
        "_server_receive",
        "_server_send",
        "_wanted",
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
        self.sending_since: float | None = None
        self.transport = transport_of(receive)
        self._interrupter = self._loop.interrupter()
        self._look_at = 0.0  # when the peer may have been silent for so long that it matters
        self._news: Signal | None = None  # the app waits for a message
        self._wanted: Signal | None = None  # the pump waits for the app
        self._reader: Task | None = None
        self.token.add_listener(self._cancelled)

    @property
    def gone(self) -> bool:
        """Whether nobody reads what we send."""
        cancellation = self.token.cancellation
        return cancellation is not None and cancellation.reason in GONE

    @property
    @abstractmethod
    def settled(self) -> bool:
        """Whether there is nothing left that could go wrong unseen."""
        ...

    def start(self) -> None:
        """Begin to read; :meth:`stop` ends it."""
        self._reader = self._loop.start(self._pump, "streamkit owner of receive")

    def stop(self) -> None:
        """The app has returned: read no more, and have nothing cancelled on its behalf."""
        reader, self._reader = self._reader, None  # else its end would hold us, and we it
        if reader is not None:
            reader.cancel()
        self.source.finish()

    @abstractmethod
    async def receive(self) -> Message:
        """What the app sees instead of the server's ``receive()``; any number of callers."""
        ...

    @abstractmethod
    async def send(self, message: Message) -> None:
        """What the app sees instead of the server's ``send()``."""
        ...

    @abstractmethod
    async def dismiss(self) -> None:
        """The app has ended and nobody is there: leave the server nothing to complain about."""
        ...

    @abstractmethod
    async def explain(self, cancellation: Cancellation) -> None:
        """The app was cut short and somebody is there: say why, where it can still be said."""
        ...

    # -- for the two kinds ---------------------------------------------------------------------

    @abstractmethod
    async def _pump(self) -> None: ...

    async def _wait_wanted(self) -> None:
        self._wanted = self._loop.signal()
        await self._wanted.wait()

    async def _wait_news(self) -> None:
        if self._news is None:
            self._news = self._loop.signal()
        await self._news.wait()

    def _tell_app(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set()

    def _cancelled(self, cancellation: Cancellation) -> None:
        if self._news is not None:
            self._tell_app()
        if self.sending_since is not None and cancellation.reason in GONE:
            # A send() that is blocked on a client which left is never released by some servers.
            self._interrupter.interrupt()

    def _begin_send(self, message: Message) -> Awaitable[object] | None:
        """Hand it to the server; return what is left of that, to be awaited at once, or None."""
        if self.sending_since is not None:  # a second task sends beside it: it has the interrupter
            return self._server_send(message)
        self.sending_since = self._loop.now()
        rest = None
        try:
            rest = self._interrupter.begin(self._server_send(message))
        finally:
            if rest is None:
                self.sending_since = None
        return None if rest is None else self._end_send(rest)

    async def _end_send(self, rest: Awaitable[object]) -> None:
        try:
            await rest
        finally:
            self.sending_since = None

    async def _drop(self) -> None:
        await close_orphans()
        await anyio.lowlevel.checkpoint()

    # -- what nobody reports -------------------------------------------------------------------

    def check(self, now: float, write_stall: float, silent_for: float) -> None:
        """Look for what no event tells: a write that is stuck, a connection that closed unseen."""
        if self.settled:
            return
        blocked = 0.0 if self.sending_since is None else now - self.sending_since
        if blocked >= write_stall:
            self._lose(
                Reason.WRITE_STALLED,
                f"one write has been blocked for {blocked:.3g} s (limit {write_stall:.3g} s)",
            )
        elif self.transport is None:
            return
        elif seen := left_unseen(self.transport):
            self._left_unseen(seen)
        elif now >= self._look_at and (seen := self._look_for_silence(now, silent_for)):
            self._lose(Reason.CLIENT_DISCONNECT, seen)
        else:
            return
        if blocked and self.transport is not None:
            self.transport.abort()  # else it waits for ever to send what it holds (measured)

    def _look_for_silence(self, now: float, silent_for: float) -> str:
        """Return what shows that the peer has vanished, or ``""`` and when to look next.

        Not at every sweep: to ask the kernel of each of 1,000 idle connections took more than all
        else that they cost (measured), and between two looks a silence grows no faster than time.
        """
        assert self.transport is not None
        silence = silence_of(self.transport)
        if silence is None:
            self._look_at = math.inf
            return ""
        if silence >= silent_for:
            limit = f"limit {silent_for:.3g} s"
            return f"no packet of the client's has come for {silence:.3g} s ({limit})"
        matters = silent_for / 3
        if silence >= matters:
            ask_whether_there(self.transport, silent_for)
            matters = silent_for
        self._look_at = now + matters - silence
        return ""

    def _left_unseen(self, seen: str) -> None:
        self._lose(Reason.CLIENT_DISCONNECT, seen)

    def _lose(self, reason: Reason, detail: str) -> None:
        """Nobody is there any more."""
        self.source.cancel(reason, detail)


def means_closed(error: Exception) -> bool:
    """Whether a ``send()`` that failed with this means that nobody is there any more.

    OSError is what ASGI 2.4 asks of servers; uvloop's transports raise RuntimeError with "closed"
    in it (measured with a pipelined request).
    """
    return not isinstance(error, RuntimeError) or "closed" in str(error)
