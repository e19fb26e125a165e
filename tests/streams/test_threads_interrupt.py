"""Ending sync code between two bytecodes: only what opted in, only the user's code, only once."""

import itertools
import random
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from streamkit._core import CancelSource, Reason
from streamkit.errors import StreamCancelled, StreamkitError, ThreadInterrupted, UsageBug
from streamkit.streams._interrupt import InterruptibleCalls, _strike
from streamkit.streams._thread_job import thread_statistics
from streamkit.streams._threaded import ThreadedGenerator
from streamkit.testing import ThreadGate, wait_all_tasks_blocked

pytestmark = pytest.mark.asyncio_only
# It could strike in the tracer of `make coverage`, which then keeps a lock for ever.
where_nobody_traces = pytest.mark.skipif(
    sys.gettrace() is not None, reason="an interrupt at random strikes the tracer as well"
)


def spin() -> None:
    while True:
        pass


@pytest.mark.blocks_the_loop
async def test_a_spinning_next_ends_and_its_cleanup_runs_in_its_thread() -> None:
    log: list[object] = []
    spinning = threading.Event()

    def generate() -> Iterator[int]:
        thread = threading.get_ident()
        try:
            yield 0
            spinning.set()
            spin()
        except Exception:  # noqa: BLE001 - what model code does
            log.append("swallowed")
        finally:
            log.append(threading.get_ident() == thread)

    stream = ThreadedGenerator(generate(), CancelSource(), interrupt=True)
    await anext(stream)
    spinning.wait()

    await stream.aclose()

    assert log == [True]
    assert thread_statistics().running == 0


@pytest.mark.blocks_the_loop
async def test_without_the_option_nothing_is_interrupted() -> None:
    stop = threading.Event()
    spinning = threading.Event()

    def generate() -> Iterator[int]:
        yield 0
        spinning.set()
        while not stop.is_set():
            pass
        yield 1

    stream = ThreadedGenerator(generate(), CancelSource())
    await anext(stream)
    spinning.wait()
    stream.source.cancel(Reason.REQUESTED)
    stop.set()
    await stream.aclose()

    assert stream.statistics().produced == 2


async def test_a_generator_at_its_yield_is_closed_and_not_interrupted() -> None:
    ended_by: list[type[BaseException]] = []

    def generate() -> Iterator[int]:
        try:
            while True:
                yield 0
        except BaseException as error:
            ended_by.append(type(error))
            raise

    stream = ThreadedGenerator(generate(), CancelSource(), interrupt=True, batch_limit=2)
    await anext(stream)
    await wait_all_tasks_blocked()
    await stream.aclose()

    assert ended_by == [GeneratorExit]


async def test_the_cleanup_is_never_interrupted() -> None:
    cleaned: list[str] = []
    gate = ThreadGate()

    def generate() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            gate.wait()
            cleaned.extend(str(number) for number in range(10_000))

    source = CancelSource()
    stream = ThreadedGenerator(generate(), source, interrupt=True, batch_limit=2)
    await anext(stream)
    await wait_all_tasks_blocked()
    source.cancel(Reason.REQUESTED)
    await wait_all_tasks_blocked()
    gate.open()
    await stream.aclose()

    assert len(cleaned) == 10_000


@pytest.mark.blocks_the_loop
async def test_one_that_swallows_the_interrupt_is_closed_at_its_next_yield() -> None:
    log: list[str] = []
    spinning = threading.Event()

    def generate() -> Iterator[int]:
        yield 0
        try:
            spinning.set()
            spin()
        except ThreadInterrupted:
            log.append("swallowed")
        try:
            yield 1
        finally:
            log.append("closed")

    stream = ThreadedGenerator(generate(), CancelSource(), interrupt=True)
    await anext(stream)
    spinning.wait()
    await stream.aclose()

    assert log == ["swallowed", "closed"]
    assert stream.statistics().produced == 2


@where_nobody_traces
async def test_interrupts_at_random_moments_hit_the_generator_or_nothing() -> None:
    """The thread is reused: one that hit our own code, or came late, would break a later round."""
    chance = random.Random(20260902)
    made = 0

    def generate(items: int) -> Iterator[int]:
        nonlocal made
        for number in range(items):
            made += 1
            yield number

    for _ in range(300):
        made = 0
        stream = ThreadedGenerator(generate(1_000_000), CancelSource(), interrupt=True)
        for _ in range(chance.randrange(1, 300)):
            await anext(stream)
        await stream.aclose()

        # Struck between `made += 1` and the yield, it made one less than it says.
        assert stream.statistics().produced in {made, made - 1}
        assert thread_statistics().running == 0

        whole = ThreadedGenerator(generate(100), CancelSource(), interrupt=True)
        assert [item async for item in whole] == list(range(100))


def test_a_call_in_c_that_returns_after_the_interrupt_leaves_nothing_pending() -> None:
    for _ in range(50):
        calls = InterruptibleCalls()
        blocked = threading.Lock()
        blocked.acquire()
        ends: list[str] = []

        def work(calls: InterruptibleCalls, lock: threading.Lock, ends: list[str]) -> None:
            try:
                calls.run(lock.acquire)
                ends.append("returned")
            except ThreadInterrupted:
                ends.append("interrupted")
            ends.extend("." for _ in range(1000))  # here it would strike

        thread = threading.Thread(target=work, args=(calls, blocked, ends))
        thread.start()
        calls.interrupt()
        blocked.release()
        thread.join()

        assert ends[0] in {"returned", "interrupted"}
        assert len(ends) == 1001


@where_nobody_traces
async def test_an_interrupt_between_an_item_and_the_books_loses_no_item() -> None:
    for read in range(150):
        made = itertools.count()  # in C: an interrupt strikes our own lines, or none
        stream = ThreadedGenerator(made, CancelSource(), interrupt=True, batch_limit=2_000)
        for _ in range(read % 20 + 1):
            await anext(stream)
        await stream.aclose()

        assert stream.statistics().produced == next(made)


def test_an_interrupt_that_strikes_on_the_way_out_leaves_no_trace() -> None:
    class Strike:
        """Stands in for the lock: struck while a call, having returned, waits for it."""

        def __init__(self) -> None:
            self.entered = 0

        def __enter__(self) -> None:
            self.entered += 1
            if self.entered == 2:
                calls._interrupted = True
                _strike(threading.get_ident())

        def __exit__(self, *_: object) -> None: ...

    calls = InterruptibleCalls()
    calls._lock = Strike()  # type: ignore[assignment]

    with pytest.raises(ThreadInterrupted):
        calls.run(lambda: None)

    assert repr(calls) == "<InterruptibleCalls interrupted>"
    assert calls._thread_id is None
    later = InterruptibleCalls()
    later.interrupt()
    with pytest.raises(ThreadInterrupted):  # a call inside another one would just run
        later.run(spin)


def test_an_interrupt_after_the_call_hits_nothing() -> None:
    calls = InterruptibleCalls()
    calls.run(lambda: None)

    thread = threading.Thread(target=calls.interrupt)
    thread.start()
    thread.join()

    assert sum(1 for _ in range(10_000)) == 10_000


def test_a_call_that_had_not_begun_is_refused() -> None:
    calls = InterruptibleCalls()
    calls.interrupt()
    calls.interrupt()

    with pytest.raises(ThreadInterrupted, match="before it began"):
        calls.run(spin)


def test_a_call_inside_a_call_is_interrupted_with_the_outer_one() -> None:
    outer, inner = InterruptibleCalls(), InterruptibleCalls()
    inside, again, survived = threading.Event(), threading.Event(), threading.Event()
    ends: list[str] = []

    def nested() -> None:
        inside.set()
        try:
            again.wait()
            survived.set()
            spin()
        finally:
            ends.append("inner")

    def work() -> None:
        try:
            outer.run(lambda: inner.run(nested))
        except ThreadInterrupted:
            ends.append("outer")

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    inner.interrupt()
    again.set()
    survived.wait()
    outer.interrupt()
    thread.join()

    assert ends == ["inner", "outer"]
    assert InterruptibleCalls().run(lambda: "a later call works") == "a later call works"


def test_another_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))

    with pytest.raises(UsageBug, match="interrupt=True needs CPython, this is pypy"):
        InterruptibleCalls()


async def test_a_generator_on_another_interpreter_fails_before_anything_ran(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = ThreadedGenerator(iter("ab"), CancelSource(), interrupt=True)
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))

    with pytest.raises(UsageBug):
        await anext(stream)


def test_an_interrupt_is_no_exception_that_model_code_would_swallow() -> None:
    assert not issubclass(ThreadInterrupted, Exception | StreamkitError)
    assert not issubclass(ThreadInterrupted, StreamCancelled)
