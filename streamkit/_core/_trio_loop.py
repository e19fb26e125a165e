"""trio, as streamkit uses it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import anyio

from ._loop import Interrupted, Interrupter, Signal, Task, Timer

if TYPE_CHECKING:
    import trio


class TrioLoop:
    """See :class:`Loop`."""

    __slots__ = ("_token", "now")

    steps_by_hand = False  # its traps are bound to the task that called them

    def __init__(self) -> None:
        lowlevel = sys.modules["trio"].lowlevel
        self._token: trio.lowlevel.TrioToken = lowlevel.current_trio_token()
        self.now = lowlevel.current_clock().current_time

    def is_current(self) -> bool:
        lowlevel = sys.modules["trio"].lowlevel
        return bool(lowlevel.in_trio_run()) and lowlevel.current_trio_token() is self._token

    def call_soon(self, call: Callable[[], object]) -> None:
        self._token.run_sync_soon(call)

    call_next = call_soon

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        scope = anyio.CancelScope()

        async def wait() -> None:
            with scope:
                await anyio.sleep_until(when)
                call()

        self.spawn(wait, "streamkit timer")
        return scope

    def spawn(self, work: Callable[[], Awaitable[object]], name: str) -> None:
        sys.modules["trio"].lowlevel.spawn_system_task(work, name=name)

    def start(self, work: Callable[[], Coroutine[Any, Any, object]], name: str) -> Task:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await work()

        self.spawn(run, name)
        return scope

    def signal(self) -> Signal:
        return sys.modules["trio"].Event()

    async def breathe(self) -> None:
        await sys.modules["trio"].lowlevel.checkpoint()

    def interrupter(self) -> Interrupter:
        return TrioInterrupter()

    def task(self) -> object:
        return sys.modules["trio"].lowlevel.current_task()

    def when_done(self, task: object, call: Callable[[], object]) -> bool:
        return False  # trio has no such call: whoever asks must wait for a bounded time instead

    def thread_started(self) -> None:
        pass

    def thread_parked(self) -> None:
        pass


class TrioInterrupter:
    """Trio has no edge cancel, so each step gets a scope of its own."""

    __slots__ = ("_scope",)

    def __init__(self) -> None:
        self._scope: anyio.CancelScope | None = None

    async def step(self, awaitable: Awaitable[Any]) -> Any:
        with contextlib.ExitStack() as cleanup, anyio.CancelScope() as scope:
            self._scope = scope
            cleanup.callback(setattr, self, "_scope", None)
            result = await awaitable
            if not scope.cancel_called:
                return result
        raise Interrupted

    def begin(self, awaitable: Awaitable[object]) -> Awaitable[object] | None:
        return self.step(awaitable)

    def interrupt(self) -> None:
        if self._scope is not None:
            self._scope.cancel()
