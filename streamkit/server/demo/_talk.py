"""Questions to a server over HTTP/1.1, one at a time on one connection; the answers are short."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

LIMIT: Final = 10.0  # seconds for one question; on loopback, to a server that is well
_HEAD: Final = 16_384


class NoAnswer(Exception):
    """A server did not answer, or refused; the message says which one and what was asked."""


class Talk:
    """A connection; made by :func:`talk_to`."""

    __slots__ = ("_answers", "_asking", "_stream", "_url")

    def __init__(self, stream: SocketStream, url: str) -> None:
        self._stream = stream
        self._answers = BufferedByteReceiveStream(stream)
        self._url = url
        self._asking = False

    async def get(self, path: str) -> bytes:
        """Return what is there.

        Raises:
            NoAnswer: Nothing is, or nobody.
        """
        return await self._ask(f"GET {path} HTTP/1.1\r\nhost: demo\r\n\r\n".encode(), path)

    async def get_json(self, path: str) -> dict[str, Any]:
        """Return what is there, as JSON has it; as :meth:`get` otherwise."""
        return json.loads(await self.get(path))

    async def post(self, path: str, request_id: str, body: Mapping[str, object]) -> bytes:
        """Send JSON, return the answer; as :meth:`get` otherwise."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: demo\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\nx-request-id: {request_id}\r\n\r\n"
        )
        return await self._ask(head.encode() + data, path)

    async def _ask(self, question: bytes, path: str) -> bytes:
        if self._asking:  # its answer would be taken for ours
            raise NoAnswer(f"{self._url}{path}: the question before was given up half way")
        self._asking = True
        try:
            with anyio.fail_after(LIMIT):
                await self._stream.send(question)
                status, body = await self._answer()
        except (OSError, anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError) as e:
            raise NoAnswer(f"no answer from {self._url}{path}: {e!r}") from None
        self._asking = False
        if status != 200:
            raise NoAnswer(f"{self._url}{path} answered {status}: {body[:200].decode()}")
        return body

    async def _answer(self) -> tuple[int, bytes]:
        head = await self._answers.receive_until(b"\r\n\r\n", _HEAD)
        first, *lines = head.decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        body = await self._answers.receive_exactly(int(fields["content-length"]))
        return int(first.split(" ")[1]), body

    def __repr__(self) -> str:
        return f"<Talk {self._url}>"


@asynccontextmanager
async def talk_to(url: str) -> AsyncGenerator[Talk]:
    """Connect; the end of the block closes the connection.

    Raises:
        NoAnswer: Nobody listens there.
    """
    parts = urlsplit(url)
    try:
        stream = await anyio.connect_tcp(parts.hostname or "", parts.port or 80)
    except OSError as error:
        raise NoAnswer(f"{url}: {error}") from None
    async with stream:
        yield Talk(stream, url)
