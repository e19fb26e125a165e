"""The one place that knows which event loop is running: clock, timers, threads, detached tasks."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio

if TYPE_CHECKING:
    import trio

_NO_LOOP = "streamkit runs inside asyncio or trio; no event loop is running in this thread"


class Timer(Protocol):
    """A call planned for later."""

    def cancel(self) -> None:
        """Forget the call; no effect once it has been made."""


class Loop(Protocol):
    """What streamkit needs from an event loop beyond anyio's structured API."""

    def now(self) -> float:
        """The loop's clock, in seconds; callable from any thread."""
        ...

    def is_current(self) -> bool:
        """Whether the calling thread is the one that runs this loop."""
        ...

    def call_soon(self, call: Callable[[], object]) -> None:
        """Run ``call`` in the loop's thread at its next turn; callable from any thread.

        Raises:
            RuntimeError: The loop has been closed.
        """

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Run ``call`` at the instant ``when``; only from the loop's thread."""
        ...

    def spawn(self, work: Callable[[], Awaitable[object]], name: str) -> None:
        """Start a task that outlives its creator; the loop holds it strongly until it ends."""

    def interrupter(self) -> Interrupter:
        """Something that can end one await of the current task; see there."""
        ...

    def task(self) -> object:
        """The task that is running now, for comparison by identity."""
        ...

    def when_done(self, task: object, call: Callable[[], object]) -> bool:
        """Call back when ``task`` has ended; False where the loop offers no such thing."""
        ...

    def thread_started(self) -> None:
        """A worker thread of ours is computing: a virtual clock must not run ahead of it."""

    def thread_parked(self) -> None:
        """It computes no longer."""


class Interrupter(Protocol):
    """Ends one await of one task, from outside, without leaving a trace in the task.

    It exists because a cancel scope may not stay open across the ``yield`` of a generator, and one
    scope for each token is a price that staying clients would pay.
    """

    async def step(self, awaitable: Awaitable[Any]) -> Any:
        """Await it; when interrupted, raise :class:`Interrupted` instead of its result."""

    def interrupt(self) -> None:
        """End the step that is running; no effect between steps. Loop thread only.

        May be called again for code that swallowed the first one.
        """


class Interrupted(Exception):
    """The step was ended by :meth:`Interrupter.interrupt`."""


def current_loop() -> Loop:
    """Return the running loop.

    Raises:
        RuntimeError: None is running in this thread.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return _TrioLoop()
    try:
        return _AsyncioLoop(asyncio.get_running_loop())
    except RuntimeError:
        raise RuntimeError(_NO_LOOP) from None


def now() -> float:
    """The clock of the running loop, in seconds; everything in streamkit reads this one clock."""
    # Not anyio.current_time(): it knows no loop in a timer's callback, where deadlines cancel.
    return current_loop().now()


_detached: set[asyncio.Task[object]] = set()
# asyncio itself keeps only weak references to tasks: without this set a detached abort could be
# collected half way (documented at asyncio.create_task).


class _AsyncioLoop:
    __slots__ = ("_loop", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # uvloop's time() is the same clock in whole milliseconds: too coarse for what we measure.
        coarse = type(loop).__module__.startswith("uvloop")
        fine: Any = time.monotonic  # noqa: TID251
        self.now = fine if coarse else loop.time

    def is_current(self) -> bool:
        return asyncio._get_running_loop() is self._loop

    def call_soon(self, call: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(call)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        return self._loop.call_at(when, call)

    def spawn(self, work: Callable[[], Awaitable[object]], name: str) -> None:
        async def run() -> object:
            return await work()

        task = self._loop.create_task(run(), name=name)
        _detached.add(task)
        task.add_done_callback(_detached.discard)

    def interrupter(self) -> Interrupter:
        return _AsyncioInterrupter(self)

    def task(self) -> object:
        return asyncio.current_task(self._loop)

    def when_done(self, task: object, call: Callable[[], object]) -> bool:
        def done(_: object) -> None:
            call()

        cast("asyncio.Task[object]", task).add_done_callback(done)
        return True

    def thread_started(self) -> None:
        # Only a virtual clock has it: time must not jump while a thread is computing.
        if (hook := getattr(self._loop, "thread_started", None)) is not None:
            hook()

    def thread_parked(self) -> None:
        if (hook := getattr(self._loop, "thread_parked", None)) is not None:
            hook()


class _AsyncioInterrupter:
    """Uses ``Task.cancel()`` and ``uncancel()`` as ``asyncio.timeout`` does: nothing to set up."""

    __slots__ = ("_cancelling", "_loop", "_ours", "_task")

    def __init__(self, loop: _AsyncioLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[object] | None = None  # set while a step is running
        self._cancelling = 0  # cancels that the task had before the step
        self._ours = 0  # cancels that we added to it

    async def step(self, awaitable: Awaitable[Any]) -> Any:
        self._task = task = asyncio.current_task()
        assert task is not None
        self._cancelling = task.cancelling()
        try:
            result = await awaitable
        except asyncio.CancelledError:
            if self._ours and self._uncancel(task) <= self._cancelling:
                raise Interrupted from None  # noqa: ASYNC104 - the cancel was ours
            raise
        except BaseException:
            # The step answered our cancel with an error of its own: the cancel is used up.
            self._uncancel(task)
            raise
        finally:
            self._task = None
        if self._ours:  # it swallowed the cancel and produced something for nobody
            self._uncancel(task)
            raise Interrupted
        return result

    def interrupt(self) -> None:
        task = self._task
        if task is None:
            return
        if task is asyncio.current_task():
            # Asked from inside the step itself. A cancel now would hit whatever the task awaits
            # next, perhaps after the step; one turn later it is known to be suspended in it.
            self._loop.call_soon(self.interrupt)
            return
        self._ours += 1
        task.cancel("streamkit: interrupted")

    def _uncancel(self, task: asyncio.Task[object]) -> int:
        while self._ours:
            self._ours -= 1
            task.uncancel()
        return task.cancelling()


class _TrioLoop:
    __slots__ = ("_token", "now")

    def __init__(self) -> None:
        lowlevel = sys.modules["trio"].lowlevel
        self._token: trio.lowlevel.TrioToken = lowlevel.current_trio_token()
        self.now = lowlevel.current_clock().current_time

    def is_current(self) -> bool:
        lowlevel = sys.modules["trio"].lowlevel
        return bool(lowlevel.in_trio_run()) and lowlevel.current_trio_token() is self._token

    def call_soon(self, call: Callable[[], object]) -> None:
        self._token.run_sync_soon(call)

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

    def interrupter(self) -> Interrupter:
        return _TrioInterrupter()

    def task(self) -> object:
        return sys.modules["trio"].lowlevel.current_task()

    def when_done(self, task: object, call: Callable[[], object]) -> bool:
        return False  # trio has no such call: whoever asks must wait for a bounded time instead

    def thread_started(self) -> None:
        pass

    def thread_parked(self) -> None:
        pass


class _TrioInterrupter:
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

    def interrupt(self) -> None:
        if self._scope is not None:
            self._scope.cancel()
