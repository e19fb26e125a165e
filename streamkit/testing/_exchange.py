"""One HTTP request to an ASGI app, in memory, by a client that leaves when the test says so."""

from __future__ import annotations

import asyncio
import json as json_format
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import anyio
import anyio.abc

from ._connection import ASGIApp, Connection, Message, headers_as_sent
from ._events import EventParser, ServerEvent

Outcome: TypeAlias = Literal["running", "returned", "raised", "cancelled"]


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class Exchange(Connection):
    """One request, its response, and a client that may leave at any moment.

    Run it as ``await exchange.run()``, or as a context manager and let the test act meanwhile; the
    block's end waits for the app. An error of the app comes out there. All instants are on the
    loop's clock. The client's behaviour is planned by arguments, done by methods, or both.

    Args:
        app: The ASGI app. It gets a task of its own.
        method: HTTP method.
        path: Path, with a query string if need be.
        body: The request body, as one piece or several ``http.request`` messages.
        json: A value to send as JSON instead of ``body``.
        headers: Request headers.
        state: What the lifespan left for requests (see :class:`Lifespan`).
        server: Which server's manners to have; the table is in ``docs/reference/testing.md``.
        spec_version: What the server claims, if not its real version.
        leaves_after_seconds: The client leaves so long after the start.
        leaves_after_chunks: The client leaves within the ``send()`` of that chunk; 0: of the head.
        leaves_before_body_ends: ``body`` is only a part. The client leaves instead of sending the
            rest: when the app asks for it, or after ``leaves_after_seconds``.
        stops_reading_after_chunks: Afterwards ``send()`` blocks until the client leaves.
        stops_reading_after_bytes: The same, counted in bytes.

    Attributes:
        status: Of the response; None before its head.
        headers_received: Of the response, names in lower case.
        chunks: What reached the client, without empty pieces.
        completed: The response came to its regular end while the client was there.
        sent: Each call of ``send()``.
        received: Each answered call of ``receive()``.
        receiving: Calls of ``receive()`` that wait now.
        concurrent_receives: The most that ever waited at one time; 1 where one reader owns it.
        blocked_sends: Calls of ``send()`` that wait now because the client does not read.
        started_at: When it began.
        left_at: When the client left.
        ended_at: When the app ended.
        outcome: How the app ended.
        error: What it raised.
    """

    app: ASGIApp = field(kw_only=False)
    method: str = "POST"
    path: str = "/"
    body: bytes | Sequence[bytes] = b""
    json: object = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    spec_version: str | None = None

    started_at: float | None = field(default=None, init=False)
    ended_at: float | None = field(default=None, init=False)
    outcome: Outcome = field(default="running", init=False)
    error: Exception | None = field(default=None, init=False)

    _tasks: anyio.abc.TaskGroup = field(init=False)
    _task: asyncio.Task[Any] | None = field(default=None, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.json is not None:
            self.body = json_format.dumps(self.json).encode()
            self.headers = {"content-type": "application/json", **self.headers}
        self._open([self.body] if isinstance(self.body, bytes) else list(self.body))

    async def run(self) -> Self:
        """Let the exchange happen; returns it when the app has ended.

        Cancellation:
            Cancels the app and waits for it.
        """
        async with self:
            pass
        return self

    async def __aenter__(self) -> Self:
        if self.started_at is not None:
            raise RuntimeError(f"an exchange happens once, and {self!r} did already")
        self.started_at = self._now()
        if self.leaves_after_seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.leaves_after_seconds, self.leave)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._serve, name=f"{self.method} {self.path}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self._tasks.cancel_scope.cancel()
        # Without the block's own error, which the task group would wrap in an ExceptionGroup.
        await self._tasks.__aexit__(None, None, None)  # noqa: ASYNC102 - the group's own exit
        self._forget_plans()  # it may have been cancelled before it ran
        if exc is None and self.error is not None:
            raise self.error

    def cancel(self) -> None:
        """The server loses patience: ``Task.cancel()``, as uvicorn's when its grace is over."""
        if self._task is not None:
            self._task.cancel("the server cancelled the request")

    async def wait_head(self) -> None:
        """Return once the response has begun; AssertionError if the app ends without one."""
        await self._wait(lambda: self.status is not None, "the head")

    async def wait_chunks(self, count: int) -> None:
        """Return once so many chunks have arrived; AssertionError if the app ends before."""
        await self._wait(lambda: len(self.chunks) >= count, f"{count} chunks")

    async def wait_blocked(self) -> None:
        """Return once a ``send()`` blocks; AssertionError if the app ends before."""
        await self._wait(lambda: self.blocked_sends > 0, "a blocked send()")

    async def wait_ended(self) -> None:
        """Return once the app has ended, in whatever way."""
        await self._wait(lambda: self.ended_at is not None, "the end")

    @property
    def data(self) -> bytes:
        """The body that reached the client."""
        return b"".join(chunk.data for chunk in self.chunks)

    @property
    def text(self) -> str:
        """The same, as text."""
        return self.data.decode()

    @property
    def events(self) -> list[ServerEvent]:
        """The same, as server-sent events."""
        return EventParser().feed(self.data)

    def __repr__(self) -> str:
        head = "no head" if self.status is None else str(self.status)
        end = ", complete" if self.completed else ""
        left = "" if self.left_at is None else f", client left at {self.left_at:.6g}"
        return (
            f"<Exchange {self.method} {self.path} on {self.server}: {head}, "
            f"{len(self.chunks)} chunks{end}{left}, app {self.outcome}>"
        )

    async def _wait(self, reached: Callable[[], bool], what: str) -> None:
        while not reached():
            if self.ended_at is not None:
                raise AssertionError(f"{what} did not come: {self!r}") from self.error
            await self._news.wait()

    async def _serve(self) -> None:
        self._task = asyncio.current_task()
        try:
            await self.app(self._scope(), self._receive, self._send)
            self.outcome = "returned"
        except Exception as error:  # noqa: BLE001 - raised where the exchange ends
            self.outcome, self.error = "raised", error
        except BaseException:
            self.outcome = "cancelled"
            raise
        finally:
            self.ended_at = self._now()
            self._forget_plans()
            self._tell()

    def _forget_plans(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _scope(self) -> Message:
        path, _, query = self.path.partition("?")
        version = self.spec_version or self._manners.spec_version
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": version},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers_as_sent({"host": "testserver", **self.headers}),
            "client": ("127.0.0.1", 50_000),
            "server": ("testserver", 80),
            "state": dict(self.state),
        }
