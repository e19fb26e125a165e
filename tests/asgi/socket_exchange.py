"""One websocket to an ASGI app, in memory, with a client that leaves when the test says so."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Self

import anyio


class SocketExchange:
    """What a server does for one websocket. ``async with`` runs the app; its error comes out there.

    Args:
        app: The ASGI app.
        says: What the client sends first of all.
        silent: ``send()`` to a client that left does nothing, as on hypercorn; otherwise it raises,
            as on uvicorn. A blocked one is then never released, either.
        denies: Whether the server can answer a handshake with an HTTP response.
        path: Of the handshake.
        headers: Of the handshake.
    """

    def __init__(
        self,
        app: Any,
        *says: str,
        silent: bool = False,
        denies: bool = True,
        path: str = "/",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.app = app
        self.silent = silent
        self.extensions = {"websocket.http.response": {}} if denies else {}
        self.path = path
        self.headers = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
        self.inbox: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self.sent: list[dict[str, Any]] = []
        self.received = self.attempts = 0
        self.receiving = self.concurrent_receives = 0
        self.blocked_sends = 0
        self.left = False
        self.ended_at: float | None = None
        self.outcome = "running"
        self._reads = True
        self._news = asyncio.Event()
        self._error: Exception | None = None
        self._task: asyncio.Task[Any] | None = None
        for text in says:
            self.say(text)

    # -- the client ----------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self._put({"type": "websocket.receive", "text": text})

    def leave(self, code: int = 1000, reason: str = "") -> None:
        """By a close frame."""
        self._leave({"type": "websocket.disconnect", "code": code, "reason": reason})

    def vanish(self) -> None:
        """Without one."""
        self._leave({"type": "websocket.disconnect", "code": 1006})

    def stop_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True
        self._tell()

    @property
    def texts(self) -> list[str]:
        """What reached the client."""
        return [one["text"] for one in self.sent if one["type"] == "websocket.send"]

    @property
    def closed(self) -> tuple[int, str] | None:
        """The close frame that reached the client: code and reason."""
        frames = [one for one in self.sent if one["type"] == "websocket.close"]
        return (frames[0].get("code", 1000), frames[0].get("reason") or "") if frames else None

    # -- the server ----------------------------------------------------------------------------

    def go_down(self) -> None:
        """As uvicorn does on SIGTERM, at once: its own close frame, and a word to the app."""
        self._leave({"type": "websocket.disconnect", "code": 1012})

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel("the server cancelled the websocket")

    async def wait_sent(self, count: int) -> None:
        await self._wait(lambda: len(self.texts) >= count)

    async def wait_received(self, count: int) -> None:
        await self._wait(lambda: self.received >= count)

    async def wait_blocked(self) -> None:
        await self._wait(lambda: self.blocked_sends > 0)

    async def wait_ended(self) -> None:
        await self._wait(lambda: self.ended_at is not None)

    async def run(self) -> Self:
        async with self:
            pass
        return self

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._serve)
        return self

    async def __aexit__(self, exc_type: object, exc: object, traceback: object) -> None:
        if exc is not None:
            self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        if exc is None and self._error is not None:
            raise self._error

    async def _serve(self) -> None:
        self._task = asyncio.current_task()
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "path": self.path,
            "query_string": b"",
            "headers": self.headers,
            "subprotocols": [],
            "extensions": self.extensions,
        }
        try:
            await self.app(scope, self._receive, self._send)
            self.outcome = "returned"
        except Exception as error:  # noqa: BLE001 - raised where the block ends
            self.outcome, self._error = "raised", error
        except BaseException:
            self.outcome = "cancelled"
            raise
        finally:
            self.ended_at = asyncio.get_running_loop().time()
            self._tell()

    async def _receive(self) -> dict[str, Any]:
        self.receiving += 1
        self.concurrent_receives = max(self.concurrent_receives, self.receiving)
        try:
            await self._wait(lambda: self.inbox, ended=True)
        finally:
            self.receiving -= 1
        self.received += 1
        self._tell()
        return self.inbox.popleft()

    async def _send(self, message: dict[str, Any]) -> None:
        self.attempts += 1
        if not self._reads and message["type"] != "websocket.accept":
            self.blocked_sends += 1
            self._tell()
            try:
                await self._wait(lambda: self._reads or (self.left and not self.silent), ended=True)
            finally:
                self.blocked_sends -= 1
        if self.left and not self.silent:
            raise OSError("the websocket is closed")
        if not self.left:
            self.sent.append(message)
        if message["type"] == "websocket.close" and not self.left:
            self._put({"type": "websocket.disconnect", "code": message.get("code", 1000)})
        self._tell()

    def _leave(self, message: dict[str, Any]) -> None:
        if not self.left and self.closed is None:
            self.left = True
            self._put(message)

    def _put(self, message: dict[str, Any]) -> None:
        self.inbox.append(message)
        self._tell()

    async def _wait(self, reached: Any, *, ended: bool = False) -> None:
        while not reached():
            if self.ended_at is not None and not ended:
                raise AssertionError(f"it did not come to that: {self.sent}") from self._error
            await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
