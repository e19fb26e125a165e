"""Shutdown: SIGTERM is heard, requests get a grace, then they are cancelled and proved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamkit._core import Loop, Reason, Timer, current_loop

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], Any]


class Drainable(Protocol):
    """What a drain acts on (the middleware)."""

    app: ASGIApp

    def cancel_all(self, reason: Reason, detail: str = "") -> int:
        """Cancel every live request."""
        ...

    async def wait_aborts(self) -> None:
        """Wait for the aborts that were started."""


class Drain:
    """Cancels what is left of the live requests when the server goes down.

    Servers tell an app nothing when SIGTERM comes, and with an open stream some never exit
    (measured: uvicorn and granian with their defaults). So the signal handler that the server had
    installed is chained: ours starts the grace, theirs goes on as before. Where that is impossible
    (hypercorn's worker processes), the shutdown message of the lifespan is the first to be heard.

    Attributes:
        started: Whether the process is going down.
    """

    def __init__(self, target: Drainable, grace: float | None) -> None:
        self._target = target
        self._grace = grace
        self._previous: dict[int, Any] = {}
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self.started: bool = False

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan: the app's own, and ours around it."""
        self._chain_signals()
        answered = False

        async def hear() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                # First of all: servers have cancelled their tasks by now, but none of them has run.
                self._cancel()
            return message

        async def say(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"].startswith("lifespan.shutdown"):
                await self._finish()
            await send(message)

        try:
            await self._target.app(scope, hear, say)
        except Exception:
            if answered:
                raise
            await self._stand_in(hear, say)  # the app knows no lifespan; we need its end

    async def _stand_in(self, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        while (await receive())["type"] != "lifespan.shutdown":
            pass
        await send({"type": "lifespan.shutdown.complete"})

    def _chain_signals(self) -> None:
        # Python runs signal handlers in the main thread only; a server in another thread has none.
        if self._grace is None or threading.current_thread() is not threading.main_thread():
            return
        self._loop = current_loop()
        for number in _SIGNALS:
            previous = signal.getsignal(number)
            if not callable(previous):
                continue  # nobody handles it: the process dies, as it would without us
            self._previous[number] = previous
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._begin)
        self._previous[number](number, frame)

    def _begin(self) -> None:
        if self.started or self._loop is None or self._grace is None:
            return
        self.started = True
        self._timer = self._loop.call_at(self._loop.now() + self._grace, self._cancel)

    def _cancel(self) -> None:
        self.started = True
        self._target.cancel_all(Reason.DRAIN, "the server is shutting down")

    async def _finish(self) -> None:
        await self._target.wait_aborts()
        if self._timer is not None:
            self._timer.cancel()
        for number, previous in self._previous.items():
            # Not == : each access of a bound method makes a new object.
            if getattr(signal.getsignal(number), "__self__", None) is self:
                signal.signal(number, previous)
        self._previous.clear()
