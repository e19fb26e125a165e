"""The server's side of an in-memory exchange: ``receive()``, ``send()``, and a record of both."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio.lowlevel

from ._servers import SERVERS, Server, ServerName

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of the response body, and when it reached the client."""

    at: float
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One call of ``send()``: when, and with what. Whether it arrived is another matter."""

    at: float
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One answered call of ``receive()``: when it was made, when answered, and with what."""

    asked_at: float
    at: float
    message: Message


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class Connection:
    """What an ASGI server does for one request, with the manners of one kind of server.

    The public side is :class:`Exchange`, which documents the fields.
    """

    server: ServerName = "uvicorn"
    leaves_after_seconds: float | None = None
    leaves_after_chunks: int | None = None
    leaves_before_body_ends: bool = False
    stops_reading_after_chunks: int | None = None
    stops_reading_after_bytes: int | None = None

    status: int | None = field(default=None, init=False)
    headers_received: dict[str, str] = field(default_factory=dict[str, str], init=False)
    chunks: list[Chunk] = field(default_factory=list[Chunk], init=False)
    completed: bool = field(default=False, init=False)
    sent: list[Sent] = field(default_factory=list[Sent], init=False)
    received: list[Received] = field(default_factory=list[Received], init=False)
    receiving: int = field(default=0, init=False)
    concurrent_receives: int = field(default=0, init=False)
    blocked_sends: int = field(default=0, init=False)
    left_at: float | None = field(default=None, init=False)

    _manners: Server = field(init=False)
    _body: deque[Message] = field(default_factory=deque[Message], init=False)
    _over: bool = field(default=False, init=False)  # gone or complete: the app sees no difference
    _told: bool = field(default=False, init=False)  # the app was given an http.disconnect
    _latched: bool = field(default=False, init=False)
    _reading: bool = field(default=True, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def leave(self) -> None:
        """The client leaves, now; no effect if it has left before."""
        if self.left_at is None:
            self.left_at = self._now()
            self._over = True
            self._tell()

    def stop_reading(self) -> None:
        """The client stays and reads no more: from the next body message on ``send()`` blocks."""
        self._reading = False

    def resume_reading(self) -> None:
        """It reads again."""
        self._reading = True
        self._tell()

    def _open(self, pieces: list[bytes]) -> None:
        if self.server not in SERVERS:
            raise ValueError(f"server {self.server!r} is not one of {', '.join(SERVERS)}")
        self._manners = SERVERS[self.server]
        if self._manners.ends_body_apart and pieces != [b""]:
            pieces = [*pieces, b""]
        if self.leaves_before_body_ends:
            pieces = [piece for piece in pieces if piece]
        for number, piece in enumerate(pieces, 1):
            more = self.leaves_before_body_ends or number < len(pieces)
            self._body.append({"type": "http.request", "body": piece, "more_body": more})

    # -- receive() -----------------------------------------------------------------------------

    def _receive(self) -> Awaitable[Message]:
        return _Awaitable(self._answer) if self._manners.bare_awaitable else self._answer()

    async def _answer(self) -> Message:
        asked_at = self._now()
        self.receiving += 1
        self.concurrent_receives = max(self.concurrent_receives, self.receiving)
        try:
            message = await self._next_message()
        finally:
            self.receiving -= 1
        self.received.append(Received(asked_at=asked_at, at=self._now(), message=message))
        return message

    async def _next_message(self) -> Message:
        early = bool(self._body)
        if self._manners.answers_late and not self._latched:
            self._latched = self._over
            await anyio.lowlevel.checkpoint()
        while (message := self._ready_message(early)) is None:
            await self._news.wait()
        return message

    def _ready_message(self, early: bool) -> Message | None:
        if early and not self._body and self._manners.lies_to_early_receivers:
            return {"type": "http.disconnect"}
        asked_for_the_rest = self.leaves_before_body_ends and not self._body
        if asked_for_the_rest and self.leaves_after_seconds is None:
            self.leave()
        if self._body and (self._manners.body_first or not self._over):
            return self._body.popleft()
        if not self._over or (self._told and not self._manners.repeats):
            return None
        self._told = True
        return {"type": "http.disconnect"}

    # -- send() --------------------------------------------------------------------------------

    async def _send(self, message: Message) -> None:
        self.sent.append(Sent(at=self._now(), message=message))
        if message["type"] == "http.response.body":
            await self._wait_until_read()
        if self.left_at is not None:
            if self._manners.send_raises:
                raise OSError("the client has left")
            return
        self._check_order(message["type"])
        if message["type"] == "http.response.start":
            self._start(message)
        elif message["type"] == "http.response.body":
            self._deliver(message)

    async def _wait_until_read(self) -> None:
        if self._reading or self.left_at is not None:
            return
        self.blocked_sends += 1
        self._tell()
        try:
            while not self._reading and self.left_at is None:
                await self._news.wait()
        finally:
            self.blocked_sends -= 1

    def _check_order(self, kind: str) -> None:
        if self.completed:
            raise RuntimeError(f"{kind} was sent after the end of the response")
        if (kind == "http.response.start") != (self.status is None):
            when = "before" if self.status is None else "after"
            raise RuntimeError(f"{kind} was sent {when} http.response.start")

    def _start(self, message: Message) -> None:
        self.status = message["status"]
        for name, value in message.get("headers", ()):
            self.headers_received[name.decode().lower()] = value.decode("latin-1")
        self._act_on_progress()

    def _deliver(self, message: Message) -> None:
        if data := bytes(message.get("body", b"")):
            self.chunks.append(Chunk(at=self._now(), data=data))
        if not message.get("more_body", False):
            self.completed = self._over = True
        self._act_on_progress()

    def _act_on_progress(self) -> None:
        chunks, size = len(self.chunks), sum(len(chunk.data) for chunk in self.chunks)
        if _reached(self.stops_reading_after_chunks, chunks):
            self._reading = False
        if _reached(self.stops_reading_after_bytes, size):
            self._reading = False
        if _reached(self.leaves_after_chunks, chunks):
            self.leave()
        self._tell()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class _Awaitable:
    """What granian's ``receive()`` returns: ``create_task()`` takes coroutines only, not this."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Callable[[], Awaitable[Message]]) -> None:
        self._answer = answer

    def __await__(self) -> Generator[Any, None, Message]:
        return self._answer().__await__()


def _reached(limit: int | None, count: int) -> bool:
    return limit is not None and count >= limit


def headers_as_sent(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as they stand in an ASGI scope."""
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
