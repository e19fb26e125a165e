"""A cancelled sync generator: its reader is free at once, its thread is closed, timed, counted."""

import inspect
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest

from streamkit._core import (
    CancelSource,
    CancelToken,
    Reason,
    current_token,
    held,
    now,
    wait_held,
)
from streamkit.errors import StreamCancelled
from streamkit.streams._thread_job import thread_statistics
from streamkit.streams._threaded import ThreadedGenerator
from streamkit.testing import (
    ThreadGate,
    every_cancel_point,
    every_moment,
    wait_all_tasks_blocked,
)

pytestmark = pytest.mark.asyncio_only


class Blocking:
    """Yields some items, then blocks in ``next()`` until its gate opens; notes how it ended."""

    def __init__(self, items: int = 1) -> None:
        self.items = items
        self.gate = ThreadGate()
        self.cleanup_gate: ThreadGate | None = None
        self.log: list[str] = []
        self.thread = 0

    def run(self) -> Iterator[int]:
        self.thread = threading.get_ident()
        try:
            yield from range(self.items)
            self.log.append("blocked")
            self.gate.wait()
            self.log.append("token cancelled" if current_token().cancelled else "token open")
            yield -1
        finally:
            assert threading.get_ident() == self.thread
            if self.cleanup_gate is not None:
                self.cleanup_gate.wait()
            self.log.append("closed")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("streamkit")]


async def test_a_cancel_frees_the_reader_at_once_though_next_blocks() -> None:
    work, source = Blocking(), CancelSource()
    stream = ThreadedGenerator(work.run(), source)
    assert await anext(stream) == 0
    source.cancel_after(0.25)

    with pytest.raises(StreamCancelled) as caught:
        await anext(stream)

    assert now() == 0.25
    assert caught.value.cancellation.reason is Reason.DEADLINE
    assert work.log == ["blocked"]

    work.gate.open()
    await stream.aclose()
    assert work.log == ["blocked", "token cancelled", "closed"]


async def test_after_a_cancel_it_stays_cancelled_and_gives_nothing_more() -> None:
    source = CancelSource()
    stream = ThreadedGenerator(iter(range(10)), source)
    await anext(stream)
    await wait_all_tasks_blocked()

    source.cancel(Reason.REQUESTED)

    with pytest.raises(StreamCancelled):
        stream.take_ready()
    with pytest.raises(StreamCancelled):
        await stream.next_batch()
    with pytest.raises(StreamCancelled):
        await anext(stream)
    assert stream.statistics().undelivered == 9


async def test_what_next_still_makes_after_the_cancel_is_counted() -> None:
    work, source = Blocking(items=3), CancelSource()
    stream = ThreadedGenerator(work.run(), source)
    await anext(stream)
    await wait_all_tasks_blocked()
    source.cancel(Reason.REQUESTED)
    before = stream.statistics()

    work.gate.open()
    await stream.aclose()

    assert (before.delivered, before.undelivered) == (1, 2)
    assert stream.statistics().undelivered == 3
    assert stream.statistics().produced == 4


async def test_a_generator_that_asks_its_token_stops_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps: list[int] = []

    def generate() -> Iterator[int]:
        yield 0
        while True:
            current_token().wait_in_thread(0.001)
            current_token().raise_if_cancelled()
            steps.append(1)

    source = CancelSource()
    stream = ThreadedGenerator(generate(), source)
    await anext(stream)

    source.cancel(Reason.REQUESTED)
    await stream.aclose()

    made = len(steps)
    await wait_all_tasks_blocked()
    assert len(steps) == made
    assert lines(caplog) == []


async def test_one_that_waits_for_its_reader_is_closed_at_once() -> None:
    work, source = Blocking(items=100), CancelSource()
    stream = ThreadedGenerator(work.run(), source, batch_limit=4)
    await anext(stream)
    await wait_all_tasks_blocked()

    source.cancel(Reason.REQUESTED)
    await wait_all_tasks_blocked()

    assert work.log == ["closed"]
    assert now() == 0
    assert held() == []


async def test_a_cancel_before_the_first_item_runs_nothing() -> None:
    work, source = Blocking(), CancelSource()
    generator = work.run()
    stream = ThreadedGenerator(generator, source)

    source.cancel(Reason.REQUESTED)

    with pytest.raises(StreamCancelled):
        await anext(stream)
    assert inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED
    assert work.log == []
    assert thread_statistics().running == 0


async def test_a_token_that_was_cancelled_before_runs_nothing() -> None:
    work, source = Blocking(), CancelSource()
    source.cancel(Reason.REQUESTED)

    with pytest.raises(StreamCancelled):
        await anext(ThreadedGenerator(work.run(), source))
    assert work.log == []


async def test_a_generator_that_somebody_began_is_still_closed_in_a_thread() -> None:
    closed_in: list[int] = []

    def generate() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed_in.append(threading.get_ident())

    begun = generate()
    next(begun)

    await ThreadedGenerator(begun, CancelSource()).aclose()

    assert closed_in
    assert threading.get_ident() not in closed_in


@pytest.mark.blocks_the_loop
async def test_a_cancel_from_another_thread_stops_it_before_the_loop_hears_of_it() -> None:
    source = CancelSource()
    go, closed = threading.Event(), threading.Event()
    made: list[int] = []

    def generate() -> Iterator[int]:
        try:
            yield 0
            go.wait()
            source.cancel(Reason.SHED)
            for number in range(1, 60):
                made.append(number)
                yield number
        finally:
            closed.set()

    stream = ThreadedGenerator(generate(), source)
    await anext(stream)
    go.set()
    closed.wait()  # the loop hears nothing meanwhile

    assert made == [1]
    with pytest.raises(StreamCancelled) as caught:
        await anext(stream)
    assert caught.value.cancellation.reason is Reason.SHED
    await stream.aclose()


async def test_a_cancel_after_its_end_counts_what_was_not_read() -> None:
    source = CancelSource()
    stream = ThreadedGenerator(iter("abc"), source)
    await anext(stream)
    await wait_all_tasks_blocked()
    assert thread_statistics().running == 0

    source.cancel(Reason.REQUESTED)

    with pytest.raises(StreamCancelled):
        await anext(stream)
    assert stream.statistics().undelivered == 2


# -- closing -----------------------------------------------------------------------------------


async def test_aclose_waits_for_the_cleanup_in_the_thread() -> None:
    work = Blocking()
    work.cleanup_gate = ThreadGate()
    stream = ThreadedGenerator(work.run(), CancelSource())
    await anext(stream)
    work.gate.open()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.aclose)
        await anyio.sleep(0.2)
        assert "closed" not in work.log
        work.cleanup_gate.open()

    assert work.log[-1] == "closed"
    assert str(stream.token.cancellation) == "cancelled (requested): closed by its reader"


async def test_aclose_after_the_end_cancels_nothing_and_may_be_repeated() -> None:
    stream = ThreadedGenerator(iter("a"), CancelSource())
    assert [item async for item in stream] == ["a"]

    await stream.aclose()
    await stream.aclose()

    assert not stream.token.cancelled


async def test_aclose_while_another_task_reads_cuts_that_one_short() -> None:
    work = Blocking(items=0)
    stream = ThreadedGenerator(work.run(), CancelSource())
    ends: list[str] = []

    async def read() -> None:
        try:
            await anext(stream)
        except StreamCancelled:
            ends.append("cut short")
            work.gate.open()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await wait_all_tasks_blocked()
        await stream.aclose()

    assert ends == ["cut short"]


async def test_a_thread_that_never_comes_back_is_given_up_counted_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Blocking()
    stream = ThreadedGenerator(work.run(), CancelSource(), close_grace=2.0, report_after=0.5)
    await anext(stream)

    await stream.aclose()
    await wait_held(1.0)

    assert now() == 2.0
    assert (thread_statistics().running, thread_statistics().abandoned) == (1, 1)
    assert "Blocking.run was given up: 2 s after its cancel its thread still runs" in caplog.text

    await anyio.sleep(1.0)
    work.gate.open()
    await wait_all_tasks_blocked()
    assert (thread_statistics().running, thread_statistics().abandoned) == (0, 0)
    assert "Blocking.run came back 3.000 s after its cancel" in caplog.text


async def test_aclose_in_a_cancelled_scope_still_waits_for_the_cleanup() -> None:
    work = Blocking(items=100)
    work.cleanup_gate = ThreadGate()
    stream = ThreadedGenerator(work.run(), CancelSource(), batch_limit=2)
    await anext(stream)

    async with anyio.create_task_group() as tasks:

        async def leave() -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await stream.aclose()

        tasks.start_soon(leave)
        await anyio.sleep(0.1)
        work.cleanup_gate.open()

    assert work.log == ["closed"]


# -- what blocks is reported -------------------------------------------------------------------


async def test_a_next_that_keeps_the_cancel_waiting_is_reported_once_with_its_line_and_its_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work, source = Blocking(), CancelSource()
    stream = ThreadedGenerator(work.run(), source, report_after=0.5, close_grace=60.0)
    await anext(stream)
    before = thread_statistics()
    source.cancel(Reason.REQUESTED)

    await anyio.sleep(3.25)
    line = Blocking.run.__code__.co_firstlineno + 5
    [report] = lines(caplog)
    assert "Blocking.run keeps its cancel waiting: after 0.5 s it is still in next(), at" in report
    assert f"called from {__file__}:{line} in Blocking.run" in report
    assert thread_statistics().blocked_cancels == before.blocked_cancels + 1

    work.gate.open()
    await stream.aclose()
    assert lines(caplog)[1:] == ["Blocking.run came back 3.250 s after its cancel"]
    assert thread_statistics().longest_block >= 3.25


async def test_a_cleanup_that_keeps_the_cancel_waiting_is_reported_as_such(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Blocking(items=100)
    work.cleanup_gate = ThreadGate()
    stream = ThreadedGenerator(work.run(), CancelSource(), batch_limit=2)
    await anext(stream)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.aclose)
        await anyio.sleep(1.0)
        work.cleanup_gate.open()

    assert "after 0.5 s it is still in close(), at" in lines(caplog)[0]


async def test_a_cancel_that_waits_less_is_not_worth_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work, source = Blocking(), CancelSource()
    stream = ThreadedGenerator(work.run(), source, report_after=0.5)
    await anext(stream)
    source.cancel(Reason.REQUESTED)
    await anyio.sleep(0.4)
    work.gate.open()
    await stream.aclose()
    await anyio.sleep(1.0)

    assert lines(caplog) == []


# -- generators that misbehave -----------------------------------------------------------------


async def test_an_error_after_the_cancel_is_logged_since_nobody_reads_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = ThreadGate()

    def generate() -> Iterator[int]:
        yield 0
        gate.wait()
        raise LookupError("too late")

    stream = ThreadedGenerator(generate(), CancelSource())
    await anext(stream)
    stream.source.cancel(Reason.REQUESTED)
    gate.open()
    await stream.aclose()

    assert lines(caplog) == [f"{generate.__qualname__} failed after it was told to stop"]
    assert "LookupError: too late" in caplog.text


async def test_an_error_that_was_not_read_before_the_cancel_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def generate() -> Iterator[int]:
        yield 0
        yield 1
        raise LookupError("unread")

    stream = ThreadedGenerator(generate(), CancelSource())
    await anext(stream)
    await wait_all_tasks_blocked()
    await stream.aclose()

    assert "LookupError: unread" in caplog.text
    assert stream.statistics().undelivered == 1


async def test_an_error_in_the_cleanup_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def generate() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            raise LookupError("in the cleanup")

    stream = ThreadedGenerator(generate(), CancelSource())
    await anext(stream)
    await stream.aclose()

    assert "LookupError: in the cleanup" in caplog.text
    assert thread_statistics().running == 0


@pytest.mark.parametrize(
    ("times", "level", "said"),
    [
        pytest.param(3, logging.WARNING, "yielded 2 times while it was closed", id="some"),
        pytest.param(100, logging.ERROR, "ignores GeneratorExit: it yielded 8 times", id="many"),
    ],
)
async def test_a_generator_that_ignores_its_close_is_reported_and_bounded(
    times: int, level: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    ignored = 0

    def generate() -> Iterator[int]:
        nonlocal ignored
        yield 0
        while ignored < times:
            try:
                yield 1
            except GeneratorExit:
                ignored += 1

    generator = generate()
    stream = ThreadedGenerator(generator, CancelSource(), batch_limit=2)
    await anext(stream)
    await wait_all_tasks_blocked()

    await stream.aclose()

    assert [record.levelno for record in caplog.records] == [level]
    assert said in caplog.text
    assert thread_statistics().running == 0
    ignored = times
    generator.close()


# -- the reading task is cancelled -------------------------------------------------------------


async def test_a_reading_task_that_is_cancelled_cancels_the_generator() -> None:
    work = Blocking(items=0)
    stream = ThreadedGenerator(work.run(), CancelSource())

    with anyio.move_on_after(0.5):
        await anext(stream)

    assert stream.token.cancellation is not None
    assert stream.token.cancellation.reason is Reason.REQUESTED
    assert "the task reading it ended: CancelledError" in str(stream.token.cancellation)
    work.gate.open()
    await stream.aclose()
    assert work.log[-1] == "closed"


async def test_a_scope_cancelled_in_the_same_turn_as_the_token_goes_first() -> None:
    work, source = Blocking(items=0), CancelSource()
    stream = ThreadedGenerator(work.run(), source)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anext, stream)
        await wait_all_tasks_blocked()
        source.cancel(Reason.CLIENT_DISCONNECT)
        tasks.cancel_scope.cancel()  # a framework's; a StreamCancelled would leave the group

    assert source.token.history == ()
    work.gate.open()
    await stream.aclose()


async def test_whoever_knows_why_the_reading_task_was_cancelled_names_the_cause() -> None:
    async def blame(source: CancelSource) -> None:
        await anyio.sleep(0.01)
        source.cancel(Reason.CLIENT_DISCONNECT)

    work = Blocking(items=0)
    stream = ThreadedGenerator(work.run(), CancelSource(), blame=blame)

    with anyio.move_on_after(0.5):
        await anext(stream)

    assert stream.token.cancellation is not None
    assert stream.token.cancellation.reason is Reason.CLIENT_DISCONNECT
    work.gate.open()
    await stream.aclose()


async def test_what_a_shutdown_waits_for_names_the_thread() -> None:
    work, source = Blocking(), CancelSource()
    stream = ThreadedGenerator(work.run(), source)
    await anext(stream)
    source.cancel(Reason.DRAIN)

    assert await wait_held(0.5) == ["the end of Blocking.run in its thread"]
    work.gate.open()
    assert await wait_held(0.5) == []


# -- everywhere, at random, many times ---------------------------------------------------------


class Exclusive:
    """An iterator that fails when two threads are in it, or when two calls overlap."""

    def __init__(self, items: int) -> None:
        self.left = items
        self.made = 0
        self.closed = 0
        self.overlaps = 0
        self._inside = threading.Lock()
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self._alone():
            if not self.left:
                raise StopIteration
            self.left -= 1
            self.made += 1
            return self.made

    def close(self) -> None:
        with self._alone():
            self.closed += 1

    def _alone(self) -> threading.Lock:
        self.threads.add(threading.get_ident())
        self.overlaps += self._inside.locked()
        return self._inside


async def _cancel(stream: ThreadedGenerator[int]) -> None:
    stream.source.cancel(Reason.REQUESTED)


async def _cancel_in_thread(stream: ThreadedGenerator[int]) -> None:
    await anyio.to_thread.run_sync(stream.source.cancel, Reason.REQUESTED)


async def _aclose(stream: ThreadedGenerator[int]) -> None:
    await stream.aclose()


async def _cancel_reader(stream: ThreadedGenerator[int]) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        while await stream.next_batch():
            await anyio.lowlevel.checkpoint()


async def _wait_then_cancel(stream: ThreadedGenerator[int]) -> None:
    await wait_all_tasks_blocked()
    stream.source.cancel(Reason.REQUESTED)


async def test_five_hundred_random_cancels_leave_nothing_and_the_books_agree() -> None:
    chance = random.Random(20260901)
    endings: list[Callable[[ThreadedGenerator[int]], Awaitable[None]]] = [
        _cancel,
        _cancel_in_thread,
        _aclose,
        _cancel_reader,
        _wait_then_cancel,
    ]
    for _ in range(500):
        items = Exclusive(chance.choice([0, 1, 5, 100, 10_000]))
        stream = ThreadedGenerator(items, CancelSource(), batch_limit=chance.choice([1, 2, 7, 64]))
        read = 0
        while read < chance.choice([0, 1, 2, 10, 70]) and await anext(stream, None):
            read += 1
        await chance.choice(endings)(stream)
        await stream.aclose()

        books = stream.statistics()
        assert (books.delivered >= read, books.buffered) == (True, 0)
        assert books.produced == items.made
        assert (items.closed, items.overlaps, len(items.threads)) == (1, 0, 1)
    assert thread_statistics().running == 0
    assert await wait_held(1.0) == []


async def test_a_reader_cancelled_at_every_await_leaves_nothing() -> None:
    streams: list[tuple[ThreadedGenerator[int], Exclusive]] = []

    async def scenario() -> None:
        items = Exclusive(12)
        stream = ThreadedGenerator(items, CancelSource(), batch_limit=3)
        streams.append((stream, items))
        try:
            async for _ in stream:
                await anyio.sleep(0.01)
        finally:
            await stream.aclose()

    async def check() -> None:
        await wait_held(1.0)
        stream, items = streams[-1]
        books = stream.statistics()
        assert books.produced == items.made
        assert (items.closed, items.overlaps) == (items.made > 0 or stream.token.cancelled, 0)
        assert thread_statistics().running == 0

    report = await every_cancel_point(scenario, check=check)
    await every_cancel_point(scenario, check=check, how="task")

    assert len(streams) > 20, report


async def test_a_token_cancelled_at_every_moment_leaves_nothing() -> None:
    sources: list[CancelSource] = []
    seen: list[tuple[int, CancelToken, Exclusive, ThreadedGenerator[int]]] = []

    async def scenario() -> None:
        sources.append(CancelSource())
        items = Exclusive(8)
        stream = ThreadedGenerator(items, sources[-1], batch_limit=2)
        read = 0
        try:
            async for _ in stream:
                read += 1
                await anyio.sleep(0.01)
        except StreamCancelled:
            assert stream.token.cancelled
        finally:
            seen.append((read, stream.token, items, stream))
            await stream.aclose()

    async def check() -> None:
        await wait_held(1.0)
        read, token, items, stream = seen[-1]
        assert token.cancelled != token.finished
        assert read == 8 or not token.finished
        assert stream.statistics().produced == items.made
        assert stream.statistics().delivered == read
        assert items.overlaps == 0
        assert thread_statistics().running == 0

    await every_moment(scenario, lambda: sources[-1].cancel(Reason.REQUESTED), check=check)

    assert sum(token.cancelled for _, token, _, _ in seen) > 10
