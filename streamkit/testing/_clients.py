"""An HTTP/1.1 client on a real socket that leaves exactly when and how it is told."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from ._body import BodyReader
from ._http1 import Head, ResponseReader, encode_request
from ._sockets import RECEIVE_SIZE, Leave, TcpEnd
from ._tls import TlsEnd, open_end

TIMEOUT: Final = 5.0  # real seconds for each wait


class LeavingClient(BodyReader):
    """One connection; made by :func:`open_request` or :func:`open_connection`.

    Each wait raises TimeoutError, with what had come until then, after the client's ``timeout``.
    """

    __slots__ = ("_end", "_host", "_methods", "_reader")

    def __init__(self, end: TcpEnd | TlsEnd, host: str) -> None:
        super().__init__()
        self._end = end
        self._host = host
        self._methods: deque[str] = deque()  # of requests whose responses are still to come
        self._reader = ResponseReader()

    @property
    def left_at(self) -> float | None:
        """``time.monotonic()`` just before the system call of the latest :meth:`leave`."""
        return self._end.left_at

    @property
    def cut_by(self) -> str | None:
        """How the server ended the connection, as far as it was read: ``"fin"`` or ``"rst"``."""
        return self._end.cut_by

    @property
    def ended_cleanly(self) -> bool | None:
        """Whether the body came to its announced end; False: it was cut; None: not read so far.

        Where the head announces no end (no chunked encoding, no content length), a FIN is clean.
        """
        ended = self._reader.finished or self._reader.closed
        return self._reader.finished if ended and not self._reader.chunks else None

    @property
    def response(self) -> ResponseReader:
        """The response, as far as it has been taken off the wire."""
        return self._reader

    async def send(self, data: bytes) -> None:
        """Send raw bytes, for instance a part of :func:`encode_request`.

        Raises:
            OSError: The server has ended the connection, or does not read (TimeoutError).
        """
        await self._end.send(data)

    async def send_request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        first_bytes: int | None = None,
    ) -> bytes:
        """Send a request, or only its beginning. A second one before the response is pipelining.

        Returns:
            What was not sent, for a later :meth:`send`.
        """
        request = encode_request(method, path, host=self._host, json=json, headers=headers)
        if not self._methods:
            self._reader.begin(method)
        self._methods.append(method)
        cut = len(request) if first_bytes is None else first_bytes
        await self._end.send(request[:cut])
        return request[cut:]

    def next_response(self) -> None:
        """Turn to the response of the next pipelined request; the present one must have ended."""
        if not self._reader.finished:
            raise RuntimeError(f"the present response has not ended: {self._reader!r}")
        self._methods.popleft()
        self._reader.begin(self._methods[0] if self._methods else "GET")

    async def read_head(self) -> Head:
        """Return status and headers.

        Raises:
            ConnectionError: The server ended the connection without a response.
            BadResponse: It sent something else.
        """
        while self._reader.head is None:
            if self._reader.closed:
                raise ConnectionError(f"the connection ended ({self.cut_by}) without a response")
            await self._read_more()
        return self._reader.head

    async def read_chunk(self) -> bytes:
        """Return the next piece of the body, as the server framed it; ``b""`` at the end."""
        await self.read_head()
        while not self._reader.chunks:
            if self._reader.finished or self._reader.closed:
                return b""
            await self._read_more()
        return self._reader.chunks.popleft()

    async def take(self, most: int = RECEIVE_SIZE) -> bool:
        """Take so many bytes off the wire, at most, into :attr:`response`; False at its end."""
        if self._reader.finished or self._reader.closed:
            return False
        await self._read_more(most)
        return True

    async def leave(self, how: Leave = Leave.FIN) -> None:
        """Go away in that way. A read that waits elsewhere ends with RuntimeError."""
        await self._end.leave(how)

    async def _read_more(self, most: int = RECEIVE_SIZE) -> None:
        if data := await self._end.receive(self._reader.__repr__, most):
            self._reader.feed(data)
        else:
            self._reader.close(cleanly=self._end.cut_by == "fin")

    def __repr__(self) -> str:
        return f"<LeavingClient {self._end!r}, {self._reader!r}>"


@asynccontextmanager
async def open_connection(
    url: str,
    *,
    timeout: float = TIMEOUT,
    receive_buffer: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[LeavingClient]:
    """Connect to the host of ``url`` and send nothing; the end of the block closes the socket.

    Args:
        url: ``http://HOST:PORT`` or ``https://HOST:PORT``; what follows is ignored.
        timeout: Real seconds that each wait may last.
        receive_buffer: SO_RCVBUF, so that a client that stops reading is noticed early.
        tls: What to believe of an https server, if not what this machine believes.

    Raises:
        OSError: Nobody listens there, or the TLS handshake failed.
    """
    parts = urlsplit(url)
    end = await open_end(parts, timeout=timeout, receive_buffer=receive_buffer, tls=tls)
    try:
        yield LeavingClient(end, parts.netloc)
    finally:
        end.close()


@asynccontextmanager
async def open_request(
    method: str,
    url: str,
    *,
    json: object = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    receive_buffer: int | None = None,
) -> AsyncGenerator[LeavingClient]:
    """Connect and send a request; as :func:`open_connection` otherwise."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    connection = open_connection(url, timeout=timeout, receive_buffer=receive_buffer)
    async with connection as client:
        await client.send_request(method, target, json=json, headers=headers)
        yield client
