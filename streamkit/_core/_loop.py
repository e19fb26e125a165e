"""What streamkit needs of an event loop: clock, timers, threads, tasks of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol


class Timer(Protocol):
    """A call planned for later."""

    def cancel(self) -> None:
        """Forget the call; no effect once it has been made."""


class Task(Protocol):
    """A task of ours that runs beside the one that started it."""

    def cancel(self) -> object:
        """End it where it waits; loop thread only, no effect once it has ended."""


class Signal(Protocol):
    """Something that happens once, and those who wait for it. Loop thread only."""

    def set(self) -> None:
        """It has happened."""
        ...

    async def wait(self) -> object:
        """Return once it has; without suspending, where it has already."""


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

    def call_next(self, call: Callable[[], object]) -> None:
        """As :meth:`call_soon`, but only from the loop's thread, and cheaper for that."""

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Run ``call`` at the instant ``when``; only from the loop's thread."""
        ...

    def spawn(self, work: Callable[[], Awaitable[object]], name: str) -> None:
        """Start a task that outlives its creator; the loop holds it strongly until it ends."""

    def start(self, work: Callable[[], Coroutine[Any, Any, object]], name: str) -> Task:
        """Start a task that whoever started it holds on to, and cancels.

        On asyncio, its first step is made at once.
        """
        ...

    def signal(self) -> Signal:
        """Something to wait for, cheaper than an event of anyio's."""
        ...

    async def breathe(self) -> None:
        """Let the loop's other tasks run once."""

    @property
    def steps_by_hand(self) -> bool:
        """Whether what one task began to await may be awaited further by :func:`resume`."""
        ...

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

    def begin(self, awaitable: Awaitable[object]) -> Awaitable[object] | None:
        """Do of it what can be done without waiting; return the rest, to be awaited at once.

        None where there is no rest. For what mostly does not wait, and gives nothing back.
        """
        ...

    def interrupt(self) -> None:
        """End the step that is running; no effect between steps. Loop thread only.

        May be called again for code that swallowed the first one.
        """


class Interrupted(Exception):
    """The step was ended by :meth:`Interrupter.interrupt`."""
