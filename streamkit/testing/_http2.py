"""An HTTP/2 client (cleartext, prior knowledge) that resets one stream or drops the connection."""

from __future__ import annotations

import contextlib
import json as json_format
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from ._body import BodyReader
from ._clients import TIMEOUT
from ._http1 import BadResponse, Head
from ._sockets import Leave, TcpEnd
from ._tls import TlsEnd, open_end

if TYPE_CHECKING:
    from h2.connection import H2Connection
    from h2.events import Event


class Http2Client:
    """One connection with any number of streams; made by :func:`open_http2`.

    Each wait raises TimeoutError after the client's ``timeout``.
    """

    __slots__ = ("_authority", "_closed", "_end", "_h2", "_lock", "_streams")

    def __init__(self, end: TcpEnd | TlsEnd, authority: str) -> None:
        self._end = end
        self._authority = authority
        self._h2 = _new_connection()
        self._lock = anyio.Lock()  # whoever waits reads from the socket, for all streams
        self._streams: dict[int, Http2Stream] = {}
        self._closed = False

    @property
    def left_at(self) -> float | None:
        """``time.monotonic()`` just before the system call of the latest :meth:`leave`."""
        return self._end.left_at

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        first_bytes: int | None = None,
    ) -> Http2Stream:
        """Send a request on a new stream.

        Args:
            method: HTTP method.
            path: Path and query.
            json: A value to send as JSON; None: no body.
            headers: Request headers.
            first_bytes: Send only so many bytes of its frames, or, below 0, all but so many; then
                nothing more can be asked for on this connection.
        """
        body = b"" if json is None else json_format.dumps(json).encode()
        fields = [
            (":method", method),
            (":path", path),
            (":scheme", "http"),
            (":authority", self._authority),
            *((name.lower(), value) for name, value in (headers or {}).items()),
        ]
        if body:
            fields.append(("content-type", "application/json"))
        stream = Http2Stream(self, self._h2.get_next_available_stream_id())
        self._streams[stream.number] = stream
        self._h2.send_headers(stream.number, fields, end_stream=not body)
        if body:
            most = self._h2.max_outbound_frame_size
            for at in range(0, len(body), most):
                last = at + most >= len(body)
                self._h2.send_data(stream.number, body[at : at + most], end_stream=last)
        await self._end.send(self._h2.data_to_send()[:first_bytes])
        return stream

    async def goaway(self) -> None:
        """Say that this side goes (GOAWAY), and leave the connection open."""
        self._h2.close_connection()
        await self._flush()

    async def leave(self, how: Leave = Leave.FIN) -> None:
        """Drop the connection, with all its streams, in that way."""
        await self._end.leave(how)

    async def _reset(self, number: int) -> None:
        with contextlib.suppress(import_module("h2.exceptions").StreamClosedError):
            self._h2.reset_stream(number, import_module("h2.errors").ErrorCodes.CANCEL)
        await self._flush()

    async def _wait(self, ready: Callable[[], bool], waiting_for: Callable[[], str]) -> None:
        while not ready():
            async with self._lock:
                if not ready():
                    await self._read_more(waiting_for)

    async def _read_more(self, waiting_for: Callable[[], str]) -> None:
        data = await self._end.receive(waiting_for)
        if not data:
            self._close()
            return
        for event in self._events(data):
            self._handle(event)
        await self._flush()

    def _events(self, data: bytes) -> list[Event]:
        try:
            return self._h2.receive_data(data)
        except import_module("h2.exceptions").ProtocolError as error:
            raise BadResponse(f"expected HTTP/2, got {data[:40]!r}") from error

    def _handle(self, event: Event) -> None:
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if type(event).__name__ == "ConnectionTerminated":
            self._close()
        elif stream is not None:
            stream.handle(event)
        if (size := getattr(event, "flow_controlled_length", None)) and stream is not None:
            self._h2.acknowledge_received_data(size, stream.number)

    def _close(self) -> None:
        self._closed = True
        for stream in self._streams.values():
            stream.close()

    async def _flush(self) -> None:
        if data := self._h2.data_to_send():
            await self._end.send(data)

    def __repr__(self) -> str:
        return f"<Http2Client {self._end!r}, {len(self._streams)} streams>"


class Http2Stream(BodyReader):
    """One request and its response.

    Attributes:
        number: The stream's id.
        left_at: ``time.monotonic()`` just before the reset was sent.
        reset_by_server: The error code of the server's RST_STREAM.
    """

    __slots__ = ("_chunks", "_client", "_finished", "_head", "left_at", "number", "reset_by_server")

    def __init__(self, client: Http2Client, number: int) -> None:
        super().__init__()
        self.number: int = number
        self.left_at: float | None = None
        self.reset_by_server: int | None = None
        self._client = client
        self._head: Head | None = None
        self._chunks: deque[bytes] = deque()
        self._finished: bool | None = None

    @property
    def ended_cleanly(self) -> bool | None:
        """Whether the server ended the stream; False: reset or cut; None: not read so far."""
        return None if self._chunks else self._finished

    async def read_head(self) -> Head:
        """Return status and headers.

        Raises:
            ConnectionError: The stream or the connection ended without a response.
        """
        await self._wait(lambda: self._head is not None)
        if self._head is None:
            raise ConnectionError(f"stream {self.number} ended without a response: {self!r}")
        return self._head

    async def read_chunk(self) -> bytes:
        """Return the data of the next DATA frame; ``b""`` at the end."""
        await self._wait(lambda: bool(self._chunks))
        return self._chunks.popleft() if self._chunks else b""

    async def reset(self) -> None:
        """Send RST_STREAM (CANCEL): this client goes, its connection and its other streams stay.

        A stream that has ended has nothing to be reset: then nothing is sent.
        """
        self.left_at = time.monotonic()  # noqa: TID251 - compared with stamps of other processes
        await self._client._reset(self.number)

    def handle(self, event: Event) -> None:
        """Take what came for this stream; called by the client."""
        match type(event).__name__:
            case "ResponseReceived":
                headers = dict[str, str](getattr(event, "headers", ()))
                self._head = Head(status=int(headers.pop(":status")), headers=headers)
            case "DataReceived":
                if data := bytes(getattr(event, "data", b"")):
                    self._chunks.append(data)
            case "StreamEnded":
                self._finished = True
            case "StreamReset":
                self.reset_by_server = int(getattr(event, "error_code", 0))
                self._finished = False
            case _:
                pass  # nothing that a client has to know

    def close(self) -> None:
        """The connection has ended; called by the client."""
        if self._finished is None:
            self._finished = False

    async def _wait(self, ready: Callable[[], bool]) -> None:
        await self._client._wait(lambda: ready() or self._finished is not None, self.__repr__)

    def __repr__(self) -> str:
        head = "no head" if self._head is None else str(self._head.status)
        end = {None: "open", True: "finished", False: "cut"}[self._finished]
        return f"<Http2Stream {self.number}: {head}, {end}, {len(self._chunks)} chunks waiting>"


@asynccontextmanager
async def open_http2(
    url: str, *, timeout: float = TIMEOUT, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Http2Client]:
    """Connect with HTTP/2 to the host of ``url``; the end of the block closes the socket.

    Args:
        url: ``http://HOST:PORT`` or ``https://HOST:PORT``; what follows is ignored.
        timeout: Real seconds that each wait may last.
        tls: For https: a context that offers ``h2`` (``set_alpn_protocols``).

    Raises:
        ModuleNotFoundError: The package ``h2`` is not installed.
        OSError: Nobody listens there.
    """
    parts = urlsplit(url)
    end = await open_end(parts, timeout=timeout, tls=tls)
    try:
        client = Http2Client(end, parts.netloc)
        await client._flush()  # the preface
        yield client
    finally:
        end.close()


def _new_connection() -> H2Connection:
    try:
        connection, config = import_module("h2.connection"), import_module("h2.config")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the HTTP/2 client needs the package h2: pip install h2"
        ) from error
    configuration = config.H2Configuration(client_side=True, header_encoding="utf-8")
    new: H2Connection = connection.H2Connection(config=configuration)
    new.initiate_connection()
    return new
