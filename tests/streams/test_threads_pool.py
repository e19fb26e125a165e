"""The worker threads themselves: named, reused, bounded when idle, never in the way of an exit."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from streamkit._core import CancelSource, Reason
from streamkit.errors import StreamCancelled
from streamkit.streams._thread_job import thread_statistics
from streamkit.streams._threaded import ThreadedGenerator
from streamkit.streams._workers import (
    IDLE_LIMIT,
    _parked_worker,
    close_idle_threads,
    run_on_worker,
)
from streamkit.testing import ThreadGate, wait_all_tasks_blocked


@contextmanager
def switching_threads_often() -> Iterator[None]:
    """Make a thread lose its turn within microseconds, so that races of a few bytecodes happen."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def names() -> list[str]:
    """Our threads without their numbers."""
    ours = [t.name for t in threading.enumerate() if t.name.startswith("streamkit-")]
    return sorted(name.rpartition("-")[0] for name in ours)


def occupy(count: int) -> list[int]:
    """Occupy that many workers at the same time; return their thread ids."""
    together = threading.Barrier(count + 1)
    idents: list[int] = []

    def job() -> None:
        idents.append(threading.get_ident())
        together.wait()

    for _ in range(count):
        run_on_worker(job, role="call")
    together.wait()
    return idents


def wait_idle(count: int) -> None:
    # A thread parks just after its last word to the loop; there is no event for that.
    while thread_statistics().idle != count:
        threading.Event().wait(0.001)


def test_a_thread_is_parked_and_taken_again() -> None:
    [first] = occupy(1)
    wait_idle(1)
    assert names() == ["streamkit-idle"]

    assert occupy(1) == [first]


def test_only_so_many_threads_are_parked() -> None:
    occupy(IDLE_LIMIT + 5)
    wait_idle(IDLE_LIMIT)

    assert close_idle_threads() == IDLE_LIMIT
    assert thread_statistics().idle == 0


def test_a_parked_thread_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit.streams._workers.IDLE_SECONDS", 0.01)
    occupy(1)
    [thread] = [t for t in threading.enumerate() if t.name.startswith("streamkit-")]

    thread.join(5)

    assert not thread.is_alive()
    assert thread_statistics().idle == 0


def test_a_thread_that_is_taken_just_as_it_gives_up_waiting_runs_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamkit.streams._workers.IDLE_SECONDS", 0.01)
    occupy(1)
    wait_idle(1)
    worker = _parked_worker()
    assert worker is not None

    worker.thread.join(0.1)  # its time is up, but somebody has taken it

    done = threading.Event()
    worker.hand_over(done.set, "call")
    assert done.wait(5)


def test_closing_ends_the_parked_threads_now_and_the_busy_ones_with_their_work() -> None:
    done, began = threading.Event(), threading.Event()

    def job() -> None:
        began.set()
        done.wait()

    occupy(1)
    wait_idle(1)
    run_on_worker(job, role="generator")
    began.wait()
    assert names() == ["streamkit-generator"]

    assert close_idle_threads() == 0
    [busy] = [t for t in threading.enumerate() if t.name.startswith("streamkit-")]
    done.set()
    busy.join(5)

    assert not busy.is_alive()


@pytest.mark.asyncio_only
async def test_a_thread_says_what_it_does() -> None:
    gate = ThreadGate()

    def generate() -> Iterator[int]:
        yield 1
        gate.wait()

    stream = ThreadedGenerator(generate(), CancelSource())
    await anext(stream)

    assert names() == ["streamkit-generator"]
    assert thread_statistics().running == 1
    gate.open()
    await stream.aclose()


@pytest.mark.asyncio_only
async def test_without_a_thread_to_be_had_the_reader_is_told_and_may_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stream = ThreadedGenerator(iter("ab"), CancelSource())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await anext(stream)
    assert thread_statistics().running == 0
    await anyio.sleep(1)  # nothing holds the clock

    assert [item async for item in stream] == ["a", "b"]


BLOCKED_FOR_EVER = """
import threading, anyio
from streamkit._core import CancelSource
from streamkit.streams import ThreadedGenerator

def generate():
    yield 1
    threading.Event().wait()

async def main():
    stream = ThreadedGenerator(generate(), CancelSource(), close_grace=0.01)
    assert await anext(stream) == 1
    await stream.aclose()
    print("left")

anyio.run(main)
"""
LOOP_GONE = """
import threading, anyio
from streamkit._core import CancelSource
from streamkit.streams import ThreadedGenerator

closed = threading.Event()

def generate():
    try:
        while True:
            yield 1
    finally:
        closed.set()

async def main():
    global stream
    stream = ThreadedGenerator(generate(), CancelSource(), batch_limit=2)
    assert await anext(stream) == 1

anyio.run(main)
del stream
assert closed.wait(5)
print("left")
"""
FORKED = """
import os, threading, anyio
from streamkit._core import CancelSource
from streamkit.streams import ThreadedGenerator
from streamkit.streams._thread_job import thread_statistics

async def main():
    async for _ in ThreadedGenerator(iter("ab"), CancelSource()):
        pass

anyio.run(main)
while thread_statistics().idle != 1:
    pass  # it parks just after its last word to the loop
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
    print("left")
else:
    anyio.run(main)
    os._exit(0)
"""


@pytest.mark.realtime
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(BLOCKED_FOR_EVER, id="a thread that never returns keeps no process alive"),
        pytest.param(LOOP_GONE, id="a generator outlives its loop and is closed all the same"),
        pytest.param(FORKED, id="a forked child starts threads of its own"),
    ],
)
def test_in_a_process_of_its_own(script: str) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert (run.returncode, run.stdout) == (0, "left\n"), run.stderr


@pytest.mark.asyncio_only
async def test_a_thread_that_parks_while_its_reader_falls_asleep_is_woken() -> None:
    """A schedule of a few bytecodes that no stress test hits."""

    class ParkedLate(list[None]):
        def append(self, _: None) -> None:
            gate.wait()
            super().append(None)

    gate = ThreadGate()
    stream = ThreadedGenerator(iter("ab"), CancelSource(), batch_limit=1)
    stream._pump._parked = ParkedLate()
    assert await anext(stream) == "a"  # the thread saw that there is no room, and is about to park

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anext, stream)
        await wait_all_tasks_blocked()  # the reader sleeps, and found nobody to wake
        gate.open()

    await stream.aclose()


@pytest.mark.realtime
@pytest.mark.parametrize("batch_limit", [1, 2, 3, 64])
async def test_no_wake_up_is_lost_between_reader_and_thread(batch_limit: int) -> None:
    with switching_threads_often():
        stream = ThreadedGenerator(iter(range(5000)), CancelSource(), batch_limit=batch_limit)
        assert [item async for item in stream] == list(range(5000))
        await stream.aclose()


@pytest.mark.realtime
async def test_two_hundred_short_generators_of_which_half_are_left_share_the_threads() -> None:
    before = thread_statistics()
    for number in range(200):
        stream = ThreadedGenerator(iter(range(100)), CancelSource(), batch_limit=8)
        await anext(stream)
        if number % 2:
            stream.source.cancel(Reason.REQUESTED)
            with pytest.raises(StreamCancelled):
                await anext(stream)
        await stream.aclose()

    assert thread_statistics().running == 0
    assert thread_statistics().idle <= IDLE_LIMIT
    assert thread_statistics().abandoned == before.abandoned
