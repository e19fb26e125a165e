"""The threads that sync code runs on: one for each piece of work, then parked for the next."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from typing import Final, Literal, Self

IDLE_LIMIT: Final = 16  # parked threads; each costs some 50 KB, a start costs some 60 µs
IDLE_SECONDS: Final = 10.0  # then a parked thread ends: what has been quiet so long may pay a start

Job = Callable[[], object]
Role = Literal["call", "generator"]


class _Worker:
    """A thread that runs one job at a time. Its name says which kind: py-spy and gdb show it."""

    __slots__ = ("_epoch", "_jobs", "_number", "thread")

    def __init__(self) -> None:
        self._number = next(_numbers)
        self._epoch = _epoch
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        # A daemon: user code that never returns must not keep the process from ending.
        self.thread: threading.Thread = threading.Thread(target=self._live, daemon=True)

    def hand_over(self, job: Job | None, role: Role | Literal["idle"]) -> None:
        self.thread.name = f"streamkit-{role}-{self._number}"
        self._jobs.put(job)

    def _live(self) -> None:
        while (job := self._next_job()) is not None:
            job()
            del job  # a parked thread keeps nothing of what it ran
            if not self._park():
                return

    def _park(self) -> bool:
        if len(_idle) >= IDLE_LIMIT:
            return False
        self.thread.name = f"streamkit-idle-{self._number}"
        _idle[self] = None
        # Asked only now: close_idle_threads() either sees us parked, or we see that it was called.
        return self._epoch == _epoch or _idle.pop(self, self) is self

    def _next_job(self) -> Job | None:
        try:
            return self._jobs.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            if _idle.pop(self, self) is self:  # somebody has just taken us: a job is on its way
                return self._jobs.get()
            return None

    def __repr__(self) -> str:
        return f"<worker {self.thread.name}>"


class OneThread(_Worker):
    """A thread for jobs that have to run on one and the same, one after another.

    Code may leave something of its thread's own behind for the next job: an event loop, a database
    handle, a default CUDA device. Leaving the ``with`` ends the thread as soon as its job is done.
    """

    __slots__ = ()

    def run(self, job: Job, *, role: Role) -> None:
        """Run ``job()``, which must not raise, once those before it have ended."""
        self.hand_over(job, role)
        if self.thread.ident is None:
            self.thread.start()

    def _park(self) -> bool:
        return True

    def _next_job(self) -> Job | None:
        return self._jobs.get()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread as soon as its job is done. Idempotent."""
        self._jobs.put(None)


# A dictionary as a set with an atomic "take one", instead of a lock: a lock that some thread holds
# at the instant of a fork stays locked for ever in the child.
_idle: dict[_Worker, None] = {}
_numbers = itertools.count(1)
_epoch = 0  # counts the calls of close_idle_threads()


def run_on_worker(job: Job, *, role: Role) -> None:
    """Run ``job()``, which must not raise, on a thread of its own; legal from any thread.

    There is no limit on the number of threads: whoever admits requests has one, and a limit here
    would let generators that wait for their readers lock out all others (as anyio's 40 do).

    Raises:
        RuntimeError: The system has no more threads.
    """
    worker = _parked_worker()
    if worker is not None:
        worker.hand_over(job, role)
        return
    worker = _Worker()
    worker.hand_over(job, role)
    worker.thread.start()


def _parked_worker() -> _Worker | None:
    while True:
        try:
            worker, _ = _idle.popitem()  # the one that parked last: its stack is warm, others age
        except KeyError:
            return None
        if worker.thread.is_alive():  # a forked child inherits the list, but not the threads
            return worker


def idle_threads() -> int:
    """How many threads are parked."""
    return len(_idle)


def close_idle_threads() -> int:
    """End the parked threads and wait until they are gone; return how many there were.

    Threads that are at work now end with their work instead of being parked. Nobody has to call
    this: a parked thread ends by itself after ten seconds, and never keeps a process alive. It
    blocks for less than a millisecond; for tests that count threads, and before a fork.
    """
    global _epoch  # noqa: PLW0603 - the threads are the process's, and so is their count
    _epoch += 1
    closed: list[_Worker] = []
    while (worker := _parked_worker()) is not None:
        worker.hand_over(None, "idle")
        closed.append(worker)
    for worker in closed:
        worker.thread.join()
    return len(closed)
