"""A TCP connection with TLS on it, whose end below TLS stays in our hands."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Final, Self
from urllib.parse import SplitResult

from ._sockets import RECEIVE_SIZE, Leave, TcpEnd

_PORTS: Final = {"http": 80, "https": 443}


class TlsEnd:
    """As :class:`TcpEnd`; FIN says close_notify first, TLS_CUT does not.

    Neither asyncio's TLS nor a wrapped socket would do: both say close_notify when they can.
    """

    __slots__ = ("_incoming", "_outgoing", "_tcp", "_tls")

    def __init__(self, tcp: TcpEnd, context: ssl.SSLContext, host: str) -> None:
        self._tcp = tcp
        self._incoming = ssl.MemoryBIO()  # what came off the wire; never more than one receive()
        self._outgoing = ssl.MemoryBIO()  # what goes onto it; emptied after each call
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    @classmethod
    async def connect(cls, tcp: TcpEnd, context: ssl.SSLContext, host: str) -> Self:
        """Shake hands over a connection; it is closed if that fails.

        Raises:
            OSError: The other side has no TLS, or none that the context believes.
        """
        try:
            end = cls(tcp, context, host)
            await end._shake_hands()
        except BaseException:
            tcp.close()
            raise
        return end

    @property
    def left(self) -> Leave | None:
        """How it left last."""
        return self._tcp.left

    @property
    def left_at(self) -> float | None:
        """``time.monotonic()`` just before the system call of that."""
        return self._tcp.left_at

    @property
    def cut_by(self) -> str | None:
        """How the other side ended the connection, once this side has read it."""
        return self._tcp.cut_by

    async def send(self, data: bytes) -> None:
        """Send all of it; raises as :meth:`TcpEnd.send`."""
        self._tls.write(data)
        await self._flush()

    async def receive(self, waiting_for: Callable[[], str], most: int = RECEIVE_SIZE) -> bytes:
        """Return what has come; raises as :meth:`TcpEnd.receive`."""
        while (data := self._decrypt(most)) is None:
            if not await self._fill(waiting_for):
                return b""
        return data

    async def leave(self, how: Leave) -> None:
        """Go away in that way; raises as :meth:`TcpEnd.leave`."""
        if how is Leave.FIN:
            self._say_close_notify()
            await self._flush()
        await self._tcp.leave(Leave.FIN if how is Leave.TLS_CUT else how)

    def close(self) -> None:
        """Close the socket, however it was left; for cleaning up."""
        self._tcp.close()

    async def _shake_hands(self) -> None:
        while not self._shaken():
            await self._flush()
            if not await self._fill(lambda: "in the TLS handshake"):
                raise ConnectionError("the connection ended in the TLS handshake")
        await self._flush()

    def _shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _decrypt(self, most: int) -> bytes | None:
        """What can be read now: None: nothing yet, ``b""``: never more."""
        try:
            return self._tls.read(most)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:  # close_notify
            self._tcp.cut_by = self._tcp.cut_by or "fin"
            return b""

    def _say_close_notify(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it would wait for the other side's
            self._tls.unwrap()

    async def _fill(self, waiting_for: Callable[[], str]) -> bool:
        data = await self._tcp.receive(waiting_for)
        self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._tcp.send(data)

    def __repr__(self) -> str:
        return f"<TlsEnd over {self._tcp!r}>"


async def open_end(
    parts: SplitResult,
    *,
    timeout: float,
    receive_buffer: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> TcpEnd | TlsEnd:
    """Connect to the host of a URL, over TLS if it says https; raises OSError if that fails."""
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)
    tcp = await TcpEnd.connect(host, port, timeout=timeout, receive_buffer=receive_buffer)
    if parts.scheme != "https":
        return tcp
    return await TlsEnd.connect(tcp, tls or ssl.create_default_context(), host)
