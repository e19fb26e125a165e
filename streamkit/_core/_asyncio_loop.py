"""asyncio, as streamkit uses it: with uvloop's and every other loop that is compatible."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Final, cast

from ._loop import Interrupted, Interrupter, Signal, Task, Timer
from ._stepping import resume

_detached: set[asyncio.Task[object]] = set()
# asyncio itself keeps only weak references to tasks: without this set a detached abort could be
# collected half way (documented at asyncio.create_task).


class _Last(threading.local):
    loop: AsyncioLoop | None = None


_OVER: Final = object()
_last: Final = _Last()
"""The loop that this thread ran last: asked for several times by each request."""


def running_loop() -> AsyncioLoop:
    """Return the loop that runs in this thread; RuntimeError where none does."""
    running = asyncio.get_running_loop()
    last = _last.loop
    if last is None or last.loop is not running:
        _last.loop = last = AsyncioLoop(running)
    return last


class AsyncioLoop:
    """See :class:`Loop`."""

    __slots__ = ("loop", "now")

    steps_by_hand = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.now = _clock_of(loop)

    def is_current(self) -> bool:
        return asyncio._get_running_loop() is self.loop

    def call_soon(self, call: Callable[[], object]) -> None:
        self.loop.call_soon_threadsafe(call)

    def call_next(self, call: Callable[[], object]) -> None:
        self.loop.call_soon(call)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        return self.loop.call_at(when, call)

    def spawn(self, work: Callable[[], Awaitable[object]], name: str) -> None:
        async def run() -> object:
            return await work()

        task = self.loop.create_task(run(), name=name)
        _detached.add(task)
        task.add_done_callback(_detached.discard)

    def start(self, work: Callable[[], Coroutine[Any, Any, object]], name: str) -> Task:
        begun = _Begun(work())
        context = copy_context()
        task = self.loop.create_task(begun.go_on(), name=name, context=context)
        # As that task, so that scopes and timeouts in there are its own: see asyncio's "Extending".
        creator = asyncio.current_task(self.loop)
        if creator is not None:
            asyncio._leave_task(self.loop, creator)
        asyncio._enter_task(self.loop, task)
        try:
            context.run(begun.begin)
        finally:
            asyncio._leave_task(self.loop, task)
            if creator is not None:
                asyncio._enter_task(self.loop, creator)
        return task

    def signal(self) -> Signal:
        return asyncio.Event()

    async def breathe(self) -> None:
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, no time

    def interrupter(self) -> Interrupter:
        return AsyncioInterrupter(self)

    def task(self) -> object:
        return asyncio.current_task(self.loop)

    def when_done(self, task: object, call: Callable[[], object]) -> bool:
        def done(_: object) -> None:
            call()

        cast("asyncio.Task[object]", task).add_done_callback(done)
        return True

    def thread_started(self) -> None:
        # Only a virtual clock has it: time must not jump while a thread is computing.
        if (hook := getattr(self.loop, "thread_started", None)) is not None:
            hook()

    def thread_parked(self) -> None:
        if (hook := getattr(self.loop, "thread_parked", None)) is not None:
            hook()


class _Begun:
    """A coroutine whose first step is made before its task has its turn.

    From Python 3.12 on, eager tasks do it.
    """

    __slots__ = ("_error", "_over", "_signal", "_steps")

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._steps: Generator[Any, Any, Any] = coroutine.__await__()
        self._signal: object = None
        self._over = False
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Make the first step."""
        try:
            self._signal = next(self._steps)
        except StopIteration:
            self._over = True
        except BaseException as error:  # noqa: ASYNC103, BLE001 - its task ends with it
            self._error = error

    async def go_on(self) -> None:
        """Make all others; what the task runs."""
        if self._error is not None:
            raise self._error
        if not self._over:
            await resume(self._steps, self._signal)


def _clock_of(loop: asyncio.AbstractEventLoop) -> Any:
    # What loop.time() calls on asyncio's own loops. uvloop's is the same clock in whole
    # milliseconds, too coarse for what we measure. Any other loop's is its own: a virtual one.
    monotonic: Any = time.monotonic  # noqa: TID251
    own = getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time
    return monotonic if own or type(loop).__module__.startswith("uvloop") else loop.time


class AsyncioInterrupter:
    """Uses ``Task.cancel()`` and ``uncancel()`` as ``asyncio.timeout`` does: nothing to set up."""

    __slots__ = ("_beginning", "_cancelling", "_loop", "_ours", "_task")

    def __init__(self, loop: AsyncioLoop) -> None:
        self._loop = loop
        self._beginning = False  # a step runs, and has not been suspended yet
        self._task: asyncio.Task[object] | None = None  # set while one is, or goes on
        self._cancelling = 0  # cancels that the task had before the step
        self._ours = 0  # cancels that we added to it

    def begin(self, awaitable: Awaitable[object]) -> Awaitable[object] | None:
        steps = awaitable.__await__()
        self._beginning = True
        try:
            signal = next(steps, _OVER)
        finally:
            self._beginning = False
        # Mostly it never waited: for one that did not, an exception costs more than the rest.
        return None if signal is _OVER else self.step(resume(steps, signal))

    async def step(self, awaitable: Awaitable[Any]) -> Any:
        self._task = task = asyncio.current_task(self._loop.loop)
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
        if self._beginning or (task is not None and task is self._loop.task()):
            # Asked from inside the step itself. A cancel now would hit whatever the task awaits
            # next, perhaps after the step; one turn later it is known to be suspended in it.
            self._loop.call_next(self.interrupt)
        elif task is not None:
            self._ours += 1
            task.cancel("streamkit: interrupted")

    def _uncancel(self, task: asyncio.Task[object]) -> int:
        while self._ours:
            self._ours -= 1
            task.uncancel()
        return task.cancelling()
