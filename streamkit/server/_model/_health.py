"""The model's own word on its health: one question at a time, however many probes ask."""

from __future__ import annotations

import inspect
import logging
import math

import anyio

from streamkit._core import NEVER, hold
from streamkit.runner._model import Method
from streamkit.streams import call_in_thread

logger = logging.getLogger("streamkit.server")


class Health:
    """Asks ``is_healthy``; probes that come meanwhile share the answer.

    A check that hangs would else take one more thread with each probe that gave up on it.
    """

    __slots__ = ("_answer", "_method", "_running", "_scope")

    def __init__(self, method: Method) -> None:
        self._method = method
        self._answer: bool | None = None
        self._running: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    async def check(self) -> bool | None:
        """Whether the model is healthy; None when it leaves that to the server.

        Cancellation:
            Stops waiting; the model is not interrupted.
        """
        if self._running is None:
            self._running = anyio.Event()
            hold(self._ask, name="is_healthy", limit=math.inf)
        await self._running.wait()
        return self._answer

    def close(self) -> None:
        """Give up a check that is running."""
        if self._scope is not None:
            self._scope.cancel()

    async def _ask(self) -> None:
        assert self._running is not None
        self._answer = False  # unless it has another one: it may raise a CancelledError as well
        self._scope = scope = anyio.CancelScope()
        try:
            with scope:
                answer = await self._call()
                self._answer = None if answer is None else bool(answer)
        except (Exception, KeyboardInterrupt, SystemExit):  # the last ones would end the server
            logger.exception("the model's is_healthy failed")
        finally:
            running, self._running = self._running, None
            running.set()
            if self._answer is False and not scope.cancel_called:
                logger.warning("the model is not healthy, by its own word")

    async def _call(self) -> object:
        call = self._method.call
        answer: object = (
            call() if self._method.on_loop else await call_in_thread(call, (), {}, token=NEVER)
        )
        return await answer if inspect.isawaitable(answer) else answer
