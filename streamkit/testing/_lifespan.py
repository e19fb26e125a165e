"""An ASGI app's lifespan around a test, as a server would run it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc

from ._connection import ASGIApp, Message


class Lifespan:
    """Start the app on the way in, shut it down on the way out; an error of either comes out there.

    Attributes:
        state: What the app left for its requests: pass it to ``Exchange(..., state=...)``.
    """

    __slots__ = ("_app", "_down", "_error", "_phase", "_tasks", "_up", "state")

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._phase = "new"
        self._error: str | Exception | None = None
        self._up = anyio.Event()  # startup has ended, well or badly
        self._down = anyio.Event()  # the app shall shut down

    async def __aenter__(self) -> Self:
        self._tasks: anyio.abc.TaskGroup = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._tasks.start_soon(self._serve, name="lifespan")
            await self._up.wait()
        except BaseException:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)  # noqa: ASYNC102 - cancelled above
            raise
        if self._error is not None:
            await self._finish(None)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._finish(exc)  # noqa: ASYNC102 - the app's shutdown lasts as long as it lasts

    def __repr__(self) -> str:
        return f"<Lifespan {self._phase}>"

    async def _finish(self, exc: BaseException | None) -> None:
        self._down.set()
        await self._tasks.__aexit__(None, None, None)
        if exc is None and isinstance(self._error, Exception):
            raise self._error
        if exc is None and self._error is not None:
            raise RuntimeError(f"the app's lifespan failed: {self._error}")

    async def _serve(self) -> None:
        scope: Message = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - raised where the lifespan begins or ends
            self._error = self._error or error
        if self._phase != "shut down":
            self._error = self._error or f"the app ended while {self._phase}"
        self._up.set()

    async def _receive(self) -> Message:
        if self._phase == "new":
            self._phase = "starting"
            return {"type": "lifespan.startup"}
        await self._down.wait()
        self._phase = "shutting down"
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._phase = "running"
                self._up.set()
            case "lifespan.shutdown.complete":
                self._phase = "shut down"
            case "lifespan.startup.failed" | "lifespan.shutdown.failed":
                self._error = message.get("message") or message["type"]
                self._up.set()
            case kind:
                raise RuntimeError(f"{kind} does not belong into a lifespan")
