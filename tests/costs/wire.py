"""The server's side of a request in memory, as uvicorn does it, with next to no cost of its own.

``streamkit.testing.Exchange`` records everything, so that a token costs more there than here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from starlette.types import ASGIApp, Message, Scope


class Wire:
    """One HTTP request.

    Attributes:
        chunks: Pieces of the body that were sent; one may hold several tokens.
        size: Bytes of them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        method: str = "POST",
        path: str = "/",
        body: bytes = b"",
        accept: bytes = b"*/*",
        state: dict[str, Any] | None = None,
    ) -> None:
        self.app = app
        self.chunks = self.size = 0
        self._body = body
        self._over = asyncio.Event()  # the client left, or has it all
        self._asked = False
        self._awaited: dict[int, asyncio.Event] = {}
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (b"host", b"testserver"),
                (b"accept", accept),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
            "client": ("127.0.0.1", 50_000),
            "server": ("testserver", 80),
            "state": state or {},
        }

    async def run(self) -> None:
        await self.app(self.scope, self.receive, self.send)

    def leave(self) -> None:
        """The client leaves."""
        self._over.set()

    async def wait_chunk(self, number: int) -> None:
        if self.chunks < number:
            await self._awaited.setdefault(number, asyncio.Event()).wait()

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._over.wait()
        self.told()
        return {"type": "http.disconnect"}

    def told(self) -> None:
        """Called in the turn in which the app is told that the client left."""

    async def send(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            return
        self.chunks += 1
        self.size += len(message["body"])
        if self._awaited and self.chunks in self._awaited:
            self._awaited.pop(self.chunks).set()
        if not message.get("more_body", False):
            self._over.set()


class SocketWire:
    """One websocket whose client says so many messages, each as soon as the last was answered."""

    def __init__(self, app: ASGIApp, messages: int) -> None:
        self.app = app
        self.answers = 0
        self._left = messages
        self._inbox: deque[Message] = deque([{"type": "websocket.connect"}])
        self._news = asyncio.Event()
        self.scope: Scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"testserver")],
            "client": ("127.0.0.1", 50_000),
            "server": ("testserver", 80),
            "subprotocols": [],
            "state": {},
        }

    async def run(self) -> None:
        await self.app(self.scope, self.receive, self.send)

    async def receive(self) -> Message:
        while not self._inbox:
            self._news.clear()
            await self._news.wait()
        return self._inbox.popleft()

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            self.answers += 1
        if self._left:
            self._left -= 1
            self._inbox.append({"type": "websocket.receive", "text": "hello"})
        else:
            self._inbox.append({"type": "websocket.disconnect", "code": 1000})
        self._news.set()
