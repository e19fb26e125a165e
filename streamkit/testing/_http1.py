"""HTTP/1.1 as bytes, for a client: requests are written, responses are read; knows no sockets."""

from __future__ import annotations

import json as json_format
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
# A server under test may send anything, without end.
_HEAD_LIMIT: Final = 256 << 10  # bytes
_CHUNK_LIMIT: Final = 16 << 20
_LINE_LIMIT: Final = 4 << 10  # of the size of a chunk, or of a trailer
_SHOWN: Final = 80
_NUMBER: Final = re.compile(r"[0-9]{1,15}")
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Status and headers of a response: names in lower case, one that came twice as a list."""

    status: int
    headers: Mapping[str, str]


class BadResponse(Exception):
    """The server sent what is not HTTP/1.1."""


def encode_request(
    method: str,
    path: str,
    *,
    host: str = "testserver",
    json: object = None,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return a request as the bytes that go over the wire; ``json`` takes the place of ``body``."""
    fields = {"host": host}
    if json is not None:
        body = json_format.dumps(json).encode()
        fields["content-type"] = "application/json"
    if body or method in {"POST", "PUT", "PATCH"}:
        fields["content-length"] = str(len(body))
    fields |= {name.lower(): value for name, value in (headers or {}).items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class ResponseReader:
    """Turns the bytes of responses on one connection, cut anywhere, into heads and chunks.

    A chunk is what the server framed as one with chunked encoding, else what came in one piece.

    Attributes:
        head: Of the response that is being read; None before it is complete.
        chunks: Complete chunks that nobody has taken yet.
        finished: The body came to the end that its head announced.
        closed: No byte will follow.
    """

    __slots__ = ("_buffer", "_left", "_method", "_trailers", "chunks", "closed", "finished", "head")

    def __init__(self, method: str = "GET") -> None:
        self._buffer = b""
        self.closed: bool = False
        self.begin(method)

    def begin(self, method: str) -> None:
        """Expect the response to a request with that method; what came too early belongs to it."""
        self.head: Head | None = None
        self.chunks: deque[bytes] = deque()
        self.finished: bool = False
        self._method = method
        self._trailers = False
        self._left: int | None = None  # bytes to come, where the head announced their number
        self.feed(b"")

    def feed(self, data: bytes) -> None:
        """Take what the socket gave.

        Raises:
            BadResponse: It is not HTTP/1.1.
        """
        self._buffer += data
        if self.head is None:
            self._read_head()
        if self.head is not None and not self.finished:
            self._read_body()

    def close(self, *, cleanly: bool) -> None:
        """The connection has ended; a body without announced length may end so, if cleanly."""
        self.closed = True
        if self.head is not None and self._left is None and not self._chunked:
            self.finished = cleanly

    @property
    def partial(self) -> bytes:
        """What has come of a chunk that is not complete."""
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found or not self._chunked or self._trailers or self.finished:
            return b""
        return rest[: int(line.partition(b";")[0], 16)]

    @property
    def missing(self) -> int | None:
        """Bytes that must come before the body is over; None while nothing has said how many."""
        if self.finished:
            return 0
        if self._chunked:
            return 2 - len(self._buffer) if self._trailers else None
        return self._left

    @property
    def _chunked(self) -> bool:
        head = self.head
        return head is not None and "chunked" in head.headers.get("transfer-encoding", "")

    def _read_head(self) -> None:
        while True:
            head, found, rest = self._buffer.partition(_HEAD_END)
            if len(head) > _HEAD_LIMIT:
                raise BadResponse(f"the head of the response is longer than {_HEAD_LIMIT} bytes")
            if not found:
                return
            self._buffer = rest
            first, *lines = head.decode("latin-1").split("\r\n")
            version, _, status = first.partition(" ")
            if not version.startswith("HTTP/1.") or not _NUMBER.fullmatch(status[:3]):
                shown = first[:_SHOWN]
                raise BadResponse(f"expected the first line of a response, got {shown!r}")
            if not status.startswith("1"):  # 100 Continue and its like: the response is to come
                break
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.head = Head(status=int(status[:3]), headers=headers)
        self._expect_body(self.head)

    def _expect_body(self, head: Head) -> None:
        if self._method == "HEAD" or head.status in {204, 304}:
            self.finished = True
        elif not self._chunked and "content-length" in head.headers:
            length = head.headers["content-length"]
            if not _NUMBER.fullmatch(length):
                raise BadResponse(f"expected the length of the body, got {length[:_SHOWN]!r}")
            self._left = int(length)
            self.finished = self._left == 0

    def _read_body(self) -> None:
        if self._chunked:
            while not self.finished and self._read_chunk():
                pass
            return
        size = len(self._buffer) if self._left is None else min(self._left, len(self._buffer))
        if size:
            self._take(self._buffer[:size], size)
        if self._left is not None:
            self._left -= size
            self.finished = self._left == 0

    def _read_chunk(self) -> bool:
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found and len(line) < _LINE_LIMIT:
            return False
        if self._trailers and len(line) < _LINE_LIMIT:
            self._buffer = rest
            self.finished = not line
            return True
        size = _chunk_size(line)
        if size == 0:
            self._buffer, self._trailers = rest, True
            return True
        if len(rest) < size + 2:
            return False
        if rest[size : size + 2] != b"\r\n":
            raise BadResponse(f"a chunk of {size} bytes does not end with a line end")
        self._take(rest[:size], len(line) + 2 + size + 2)
        return True

    def _take(self, chunk: bytes, width: int) -> None:
        self.chunks.append(chunk)
        self._buffer = self._buffer[width:]

    def __repr__(self) -> str:
        head = "no head" if self.head is None else str(self.head.status)
        end = "finished" if self.finished else "cut" if self.closed else "open"
        return f"<ResponseReader {head}, {end}, {len(self.chunks)} chunks waiting>"


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not _SIZE.fullmatch(digits) or len(line) >= _LINE_LIMIT:
        raise BadResponse(f"expected the size of a chunk, got {line[:40]!r}")
    if (size := int(digits, 16)) > _CHUNK_LIMIT:
        raise BadResponse(f"a chunk of {size} bytes is longer than {_CHUNK_LIMIT}")
    return size
