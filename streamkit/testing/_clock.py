"""A loop whose clock stands still while anything can happen, and jumps when nothing can."""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias, TypeVar, TypeVarTuple

from ._waiting import describe_tasks, describe_threads

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
IoEvents: TypeAlias = list[tuple[selectors.SelectorKey, int]]
Poll: TypeAlias = Callable[[float], IoEvents]  # wait so many real seconds for I/O

START: Final = 0.0
# An instant then reads as "seconds since the test began". Code that takes the instant 0.0 for
# "never" fails at once, and should.
PATIENCE: Final = 5.0  # real seconds that a thread or a socket may keep the clock from going on
IO_GRACE: Final = 0.001  # real seconds; bytes on the loopback may need a moment to the other end
SPIN_LIMIT: Final = 20_000
# Turns without a pause, a few tenths of a second. A task that ignores its cancel makes anyio
# cancel it again in each turn, so that the loop never idles; on a real loop time goes on meanwhile.
LIVELOCK_LIMIT: Final = 50  # times SPIN_LIMIT, when there is no timer that could end the spinning


_GATE: Final = "a thread that blocks on purpose should do so at a ThreadGate"
_REAL: Final = "peers outside of the loop need real time, see the marker realtime"


class DeadlockError(Exception):
    """Nothing will ever happen again in this loop: a test that would hang on a real one."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time: hours of sleeps take milliseconds, in the same order.

    In each turn, the first of these that applies:

    1. What is ready runs: callbacks, real I/O, calls from threads. The clock stands still.
    2. A thread that is known to be working holds the clock: the loop waits for it in real time.
    3. Tasks in :meth:`wait_all_tasks_blocked` go on.
    4. The clock jumps to the next timer.
    5. Open sockets, or threads nobody told us about, may still wake the loop: it waits for them.
    6. :class:`DeadlockError`, with the list of who waits where.

    Known to be working: the loop's executors, ``anyio.to_thread``, and whatever is between
    :meth:`thread_started` and :meth:`thread_parked`. Waits in 2 and 5 last ``patience`` real
    seconds at most, then :class:`DeadlockError` tells what the threads are doing.

    Args:
        start: The clock's first instant.
        patience: Real seconds to wait for a thread or a socket.
    """

    _scheduled: list[asyncio.TimerHandle]  # asyncio's own heap of timers, which typeshed leaves out

    def __init__(self, *, start: float = START, patience: float = PATIENCE) -> None:
        self._now = start
        self._patience = patience
        self._working = 0
        self._working_lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._blocked: list[asyncio.Future[None]] = []
        self._turn = 0
        self._spinning = 0
        self._between: dict[int, list[Callable[[], object]]] = {}
        self._labels: list[str] = []
        super().__init__(_AskingSelector(self._begin_turn))

    def time(self) -> float:
        """The virtual clock, in seconds."""
        return self._now

    @property
    def turns(self) -> int:
        """How many turns the loop has begun."""
        return self._turn

    async def wait_all_tasks_blocked(self) -> None:
        """Return once nothing can happen before the clock moves: no task is ready, no thread works.

        Has priority over the clock, so it costs no virtual time. Threads that wait at a
        :class:`ThreadGate` do not work.

        Cancellation:
            Stops waiting.
        """
        future = self.create_future()
        self._blocked.append(future)
        try:
            await future
        finally:
            self._blocked.remove(future)

    def thread_started(self) -> None:
        """A thread has been given work: hold the clock. Legal from any thread.

        Whoever hands the work over calls it, before the thread can see the work. Calls add up.
        """
        with self._working_lock:
            self._working += 1

    def thread_parked(self) -> None:
        """The work is done, or waits for this loop: let the clock go. Legal from any thread.

        To be called once for each :meth:`thread_started`, after the thread's last word to the loop
        (``call_soon_threadsafe``), or by the loop when it hears that word.
        """
        with self._working_lock:
            self._working -= 1
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self.call_soon_threadsafe(_wake_up)

    @contextmanager
    def hold_time(self) -> Generator[None]:
        """Hold the clock for the length of a block; for work in threads of the test's own."""
        self.thread_started()
        try:
            yield
        finally:
            self.thread_parked()

    def call_between_turns(self, turns: int, call: Callable[[], object]) -> Callable[[], None]:
        """Have ``call()`` run after ``turns`` more turns (0: before the next one begins).

        No task is current then. What it schedules with ``call_soon`` runs behind all that is ready:
        where the loop would have run the news from a socket.

        Returns:
            A function that takes the request back, if it is still open.
        """
        calls = self._between.setdefault(self._turn + turns + 1, [])
        calls.append(call)

        def forget() -> None:
            if call in calls:
                calls.remove(call)

        return forget

    @contextmanager
    def label(self, doing: str) -> Generator[None]:
        """Have a :class:`DeadlockError` that happens inside the block say what was going on."""
        self._labels.append(doing)
        try:
            yield
        finally:
            self._labels.remove(doing)

    def __repr__(self) -> str:
        return (
            f"<VirtualTimeLoop at {self._now:.6g} s, turn {self._turn}, "
            f"{len(self._scheduled)} timers, {self._working_threads()} threads working>"
        )

    # -- threads of the loop's own -------------------------------------------------------------

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Ts], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """As in asyncio; the clock stands still until the call has ended, cancelled or not."""
        work = (executor or self._default_pool()).submit(func, *args)
        self.thread_started()
        result = asyncio.wrap_future(work, loop=self)
        # After wrap_future, so that the result is in the loop's hands before the clock is let go.
        work.add_done_callback(self._executor_done)
        return result

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:
        """As in asyncio."""
        super().set_default_executor(executor)
        self._pool = executor

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As in asyncio; ``patience`` is the limit, since no timeout ends while time is held."""
        with self.hold_time():
            await super().shutdown_default_executor()

    def _default_pool(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        assert self._pool is not None
        return self._pool

    def _executor_done(self, _: Future[Any]) -> None:
        self.thread_parked()

    def _working_threads(self) -> int:
        return self._working + self._anyio_working()

    def _anyio_working(self) -> int:
        """Count anyio's workers with a job, less those that wait for a coroutine in this very loop.

        Both are changed in the loop's thread only, so that the count is exact.
        """
        workers = [
            thread
            for thread in threading.enumerate()
            if getattr(thread, "loop", None) is self and not getattr(thread, "stopping", True)
        ]
        working = sum(worker not in getattr(worker, "idle_workers", ()) for worker in workers)
        if not working:
            return 0
        return working - sum(map(_is_asked_by_thread, asyncio.all_tasks(self)))

    # -- what the selector asks ----------------------------------------------------------------

    def _begin_turn(self, poll: Poll, timeout: float | None, has_sockets: bool) -> IoEvents:
        self._turn += 1
        for call in self._between.pop(self._turn, ()):
            call()
            timeout = 0
        if timeout is not None and timeout <= 0:
            self._spin()
            return poll(0)
        # Counted before the poll: a thread that is no longer counted has said all it had to say,
        # and the poll hears it.
        working = self._working_threads()
        if events := poll(0):
            return events
        self._spinning = 0
        return self._idle(poll, working, has_sockets)

    def _idle(self, poll: Poll, working: int, has_sockets: bool) -> IoEvents:
        if working < 0:
            raise RuntimeError(
                "more threads were parked than started: each thread_parked(), and each wait at a "
                "ThreadGate, needs a thread that was announced with thread_started() before"
            )
        if working:
            return self._wait(poll, f"for {working} working thread(s); {_GATE}")
        if waiting := [future for future in self._blocked if not future.done()]:
            for future in waiting:
                future.set_result(None)
            return []
        if self._next_timer() < math.inf:
            return self._jump(poll if has_sockets else None)
        if has_sockets:
            return self._wait(poll, f"for the open sockets; {_REAL}")
        if self._has_unknown_threads():
            return self._wait(poll, "for threads that it was not told about")
        raise DeadlockError(self._explain("no task can go on, no timer is set, no thread works"))

    def _jump(self, poll: Poll | None) -> IoEvents:
        if poll and (events := poll(IO_GRACE)):
            return events
        self._now = max(self._now, self._next_timer())
        return []

    def _wait(self, poll: Poll, what: str) -> IoEvents:
        if events := poll(self._patience):
            return events
        problem = f"the loop waited {self._patience:g} s of real time {what}"
        raise DeadlockError(self._explain(problem))

    def _spin(self) -> None:
        self._spinning += 1
        if self._spinning % SPIN_LIMIT:
            return
        if self._next_timer() < math.inf and not self._working_threads():
            self._now = max(self._now, self._next_timer())
            self._spinning = 0
        elif self._spinning >= SPIN_LIMIT * LIVELOCK_LIMIT:
            raise DeadlockError(self._explain(f"{self._spinning:,} turns without a pause"))

    def _next_timer(self) -> float:
        # An endless sleep is a timer, too: at infinity.
        return self._scheduled[0].when() if self._scheduled else math.inf

    def _has_unknown_threads(self) -> bool:
        known = sum(getattr(thread, "loop", None) is self for thread in threading.enumerate())
        return threading.active_count() - known > 1

    def _explain(self, problem: str) -> str:
        doing = "".join(f" ({label})" for label in self._labels)
        tasks = describe_tasks(asyncio.all_tasks(self))
        lines = [f"at {self._now:.6g} s of virtual time{doing}: {problem}", "waiting tasks:"]
        lines += [f"  {task}" for task in tasks or ["none"]]
        if threads := describe_threads():
            lines += ["threads:", *(f"  {thread}" for thread in threads)]
        return "\n".join(lines)


class _AskingSelector(selectors.DefaultSelector):
    """Asks the loop how to wait; everything else is the platform's selector."""

    def __init__(self, ask: Callable[[Poll, float | None, bool], IoEvents]) -> None:
        super().__init__()
        self._ask = ask

    def select(self, timeout: float | None = None) -> IoEvents:
        # One descriptor is the pipe that wakes the loop up.
        return self._ask(super().select, timeout, len(self.get_map()) > 1)


async def wait_all_tasks_blocked() -> None:
    """Return once nothing can happen in the running loop before its virtual clock moves.

    Raises:
        RuntimeError: The running loop is no :class:`VirtualTimeLoop`.

    Cancellation:
        Stops waiting.
    """
    await virtual_loop().wait_all_tasks_blocked()


def virtual_loop() -> VirtualTimeLoop:
    """Return the running loop.

    Raises:
        RuntimeError: It is no :class:`VirtualTimeLoop`.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise RuntimeError(  # noqa: TRY004 - the loop is a state, not an argument
            f"this needs virtual time, but runs on {type(loop).__name__}: set "
            "streamkit_virtual_time = true for pytest, or mark the test with virtual_time"
        )
    return loop


def _is_asked_by_thread(task: asyncio.Task[Any]) -> bool:
    # The coroutine that anyio.from_thread.run() starts; its thread waits until it has ended.
    name = getattr(task.get_coro(), "__qualname__", "")
    return name.endswith("run_async_from_thread.<locals>.task_wrapper")


def _wake_up() -> None:
    """Run by the loop: what matters is that it begins another turn."""
