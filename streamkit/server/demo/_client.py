"""One HTTP/1.1 exchange on a raw socket: only there can a client leave in exactly a named way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Mapping
from typing import Final, Self
from urllib.parse import urlsplit

from streamkit._core import now

from ._plan import Leave

_CHUNK: Final = 65_536
_MOST: Final = 1_000  # reads of what has come already; a fast server must not keep us there
_EVENT: Final = b"data: "
_LAST_CHUNK: Final = b"0\r\n\r\n"
_SMALL: Final = {
    # The smallest receive buffer there is, and a segment size that makes the server's kernel choose
    # a small send buffer too: 94 kB fit between the two instead of 1.8 MB (measured on loopback).
    (socket.SOL_SOCKET, socket.SO_RCVBUF): 1,
    (socket.IPPROTO_TCP, socket.TCP_MAXSEG): 536,
}


class Client:
    """Sends one request, reads what it wants of the answer, and leaves.

    Attributes:
        events: Server-sent events that were read.
        left_at: The instant just before the system call with which it left; or None.
    """

    __slots__ = ("_answer", "_last", "_loop", "_socket", "events", "left_at")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._answer = b""  # its head, or the whole of it where it is short
        self._last = b""  # the end of what came, an event or a chunk may be cut
        self.events = 0
        self.left_at: float | None = None

    @classmethod
    async def connect(cls, url: str, *, small_buffers: bool = False) -> Self:
        """Connect; with ``small_buffers`` a server soon notices that nobody reads.

        Raises:
            OSError: Nobody listens there.
        """
        parts = urlsplit(url)
        sock = socket.socket()
        try:
            sock.setblocking(False)
            for (level, option), value in _SMALL.items() if small_buffers else ():
                sock.setsockopt(level, option, value)
            address = (parts.hostname, parts.port)
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def ask(self, path: str, request_id: str, body: Mapping[str, object]) -> None:
        """Send the request."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: demo\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\naccept: text/event-stream\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        await self._loop.sock_sendall(self._socket, head.encode() + data)

    async def read(self) -> bool:
        """Take in what has come; False when the server has ended the connection."""
        try:
            data = await self._loop.sock_recv(self._socket, _CHUNK)
        except OSError:
            data = b""
        if len(self._answer) < _CHUNK:
            self._answer += data
        tail = self._last[-len(_EVENT) + 1 :]
        self.events += (tail + data).count(_EVENT)
        self._last = (self._last + data)[-len(_LAST_CHUNK) - len(_EVENT) :]
        return bool(data)

    @property
    def whole(self) -> bool:
        """Whether the answer is a success and came to the end that it announced."""
        head, _, body = self._answer.partition(b"\r\n\r\n")
        status, *lines = head.lower().split(b"\r\n")
        lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
        complete = len(body) == lengths[0] if lengths else self._last.endswith(_LAST_CHUNK)
        return status.startswith(b"http/1.1 200") and complete

    @property
    def status(self) -> str:
        """The first line of the answer."""
        return self._answer.partition(b"\r\n")[0].decode("latin-1")

    async def leave(self, how: Leave) -> None:
        """Go away in that way; a half-close waits until the server has closed its side."""
        if how is Leave.FIN:
            self._drain()
        elif how is Leave.RST:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.left_at = now()
        with contextlib.suppress(OSError):  # the server may have been faster
            if how is Leave.FIN:
                # Before close(), which would reset if a byte came since we drained.
                self._socket.shutdown(socket.SHUT_RDWR)
            elif how is Leave.HALF_CLOSE:
                self._socket.shutdown(socket.SHUT_WR)
        if how is Leave.HALF_CLOSE:
            while await self.read():
                pass
        self._socket.close()

    def close(self) -> None:
        """Release the socket, however it was left."""
        self._socket.close()

    def _drain(self) -> None:
        with contextlib.suppress(OSError):  # nothing there, or a reset
            for _ in range(_MOST):
                if not self._socket.recv(_CHUNK):
                    return

    def __repr__(self) -> str:
        state = "connected" if self.left_at is None else f"left at {self.left_at:.3f}"
        return f"<Client {state}, {self.events} events>"
