"""A sync generator read as an async iterator: laziness, order, read-ahead, one thread, its end."""

import gc
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import anyio
import pytest

from streamkit._core import CancelSource, Reason, current_token
from streamkit.errors import StreamCancelled, UsageBug
from streamkit.streams._threaded import ThreadedGenerator
from streamkit.testing import ThreadGate, wait_all_tasks_blocked

pytestmark = pytest.mark.asyncio_only

colour: ContextVar[str] = ContextVar("colour", default="none")


class Counter:
    """A generator's view of itself: what it made, where, and how it ended."""

    def __init__(self, items: int | None = None, error: BaseException | None = None) -> None:
        self.items = items
        self.error = error
        self.made = 0
        self.threads: set[int] = set()
        self.ended_by = ""

    def run(self) -> Iterator[int]:
        try:
            while self.items is None or self.made < self.items:
                self.threads.add(threading.get_ident())
                self.made += 1
                yield self.made
            if self.error is not None:
                raise self.error
        except GeneratorExit:
            self.ended_by = "close"
            raise
        finally:
            self.threads.add(threading.get_ident())
            self.ended_by = self.ended_by or "itself"


async def test_nothing_runs_before_the_first_item_is_asked_for() -> None:
    counter = Counter()
    stream = ThreadedGenerator(counter.run(), CancelSource())

    await wait_all_tasks_blocked()
    assert stream.take_ready() == []
    await stream.aclose()

    assert counter.made == 0
    assert not counter.threads


async def test_items_come_in_order_and_the_books_agree() -> None:
    counter = Counter(1000)
    stream = ThreadedGenerator(counter.run(), CancelSource())

    assert [item async for item in stream] == list(range(1, 1001))

    books = stream.statistics()
    assert (books.delivered, books.buffered, books.undelivered) == (1000, 0, 0)
    assert books.produced == counter.made


async def test_the_end_finishes_the_source_and_stays_the_end() -> None:
    source = CancelSource()
    stream = ThreadedGenerator(Counter(1).run(), source)

    assert [item async for item in stream] == [1]

    assert source.token.finished
    assert [item async for item in stream] == []
    assert not source.cancel(Reason.REQUESTED)


@pytest.mark.parametrize("batch_limit", [1, 2, 3, 8, 64])
async def test_at_most_batch_limit_items_are_made_ahead_of_the_reader(batch_limit: int) -> None:
    counter = Counter()
    stream = ThreadedGenerator(counter.run(), CancelSource(), batch_limit=batch_limit)
    seen: list[tuple[int, int]] = []

    for read in range(1, 3 * batch_limit):
        await anext(stream)
        await wait_all_tasks_blocked()
        seen.append((read, counter.made))
    await stream.aclose()

    # One of the places is that of the item which is being asked for.
    assert all(made <= read + batch_limit - 1 for read, made in seen)
    assert seen[0] == (1, batch_limit)


async def test_with_a_limit_of_one_nothing_is_made_before_it_is_asked_for() -> None:
    counter = Counter(5)
    stream = ThreadedGenerator(counter.run(), CancelSource(), batch_limit=1)
    made: list[int] = []

    async for _ in stream:
        await wait_all_tasks_blocked()
        made.append(counter.made)

    assert made == [1, 2, 3, 4, 5]


async def test_it_lives_on_one_thread_that_is_not_the_loops() -> None:
    counter = Counter(200)
    stream = ThreadedGenerator(counter.run(), CancelSource(), batch_limit=4)

    async for _ in stream:
        pass

    assert len(counter.threads) == 1
    assert threading.get_ident() not in counter.threads


async def test_it_runs_in_one_context_in_which_the_token_is_current() -> None:
    def generate() -> Iterator[object]:
        yield colour.get()
        colour.set("mine")
        yield current_token()
        yield colour.get()

    source = CancelSource()
    colour.set("the reader's")

    seen = [item async for item in ThreadedGenerator(generate(), source)]

    assert seen == ["the reader's", source.token, "mine"]
    assert colour.get() == "the reader's"


async def test_an_error_comes_after_the_items_that_were_made_before_it() -> None:
    error = LookupError("no such token")
    source = CancelSource()
    stream = ThreadedGenerator(Counter(3, error).run(), source)
    seen: list[int] = []

    async def read() -> None:
        async for item in stream:
            await wait_all_tasks_blocked()
            seen.append(item)

    with pytest.raises(LookupError) as caught:
        await read()

    assert seen == [1, 2, 3]
    assert caught.value is error
    assert caught.traceback[-1].name == "run"
    assert source.token.finished
    assert [item async for item in stream] == []


async def test_stop_async_iteration_raised_in_it_is_no_clean_end() -> None:
    stream = ThreadedGenerator(Counter(1, StopAsyncIteration()).run(), CancelSource())

    with pytest.raises(RuntimeError, match=r"Counter\.run raised StopAsyncIteration"):
        [item async for item in stream]


async def test_a_batch_is_all_that_is_ready_and_an_empty_one_the_end() -> None:
    stream = ThreadedGenerator(Counter(10).run(), CancelSource(), batch_limit=8)

    assert await anext(stream) == 1
    await wait_all_tasks_blocked()
    assert await stream.next_batch() == [2, 3, 4, 5, 6, 7, 8]
    await wait_all_tasks_blocked()
    assert stream.take_ready() == [9, 10]
    assert stream.take_ready() == []
    assert await stream.next_batch() == []


async def test_the_first_item_does_not_wait_for_its_batch_to_be_full() -> None:
    with ThreadGate() as gate:

        def generate() -> Iterator[int]:
            yield 1
            gate.wait()
            yield 2

        stream = ThreadedGenerator(generate(), CancelSource())

        assert await anext(stream) == 1
        gate.open()
        assert [item async for item in stream] == [2]


async def test_a_reader_that_never_sleeps_lets_the_others_run() -> None:
    stream = ThreadedGenerator(Counter().run(), CancelSource(), batch_limit=10_000)
    await anext(stream)
    await wait_all_tasks_blocked()
    others_ran = anyio.Event()

    async with anyio.create_task_group() as tasks:

        async def other() -> None:
            others_ran.set()

        tasks.start_soon(other)
        read = 0
        while not others_ran.is_set():
            await anext(stream)
            read += 1
    await stream.aclose()

    assert read <= 65


async def test_any_iterator_will_do_and_is_closed_in_its_thread_if_it_can_be() -> None:
    class Lines:
        def __init__(self) -> None:
            self.left = 2
            self.closed_in = 0

        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            if not self.left:
                raise StopIteration
            self.left -= 1
            return "line"

        def close(self) -> None:
            self.closed_in = threading.get_ident()

    assert [item async for item in ThreadedGenerator(iter("ab"), CancelSource())] == ["a", "b"]

    lines, unread = Lines(), Lines()
    assert [line async for line in ThreadedGenerator(lines, CancelSource())] == ["line", "line"]
    await ThreadedGenerator(unread, CancelSource()).aclose()

    for each in (lines, unread):
        assert each.closed_in not in {0, threading.get_ident()}
    assert unread.left == 2


async def test_a_second_reader_is_refused() -> None:
    with ThreadGate() as gate:

        def generate() -> Iterator[int]:
            gate.wait()
            yield 1

        stream = ThreadedGenerator(generate(), CancelSource())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, stream)
            await wait_all_tasks_blocked()
            with pytest.raises(UsageBug, match=r"two tasks read .*generate"):
                await anext(stream)
            gate.open()
        await stream.aclose()


@pytest.mark.parametrize(
    ("option", "value"), [("batch_limit", 0), ("report_after", 0.0), ("close_grace", -1)]
)
async def test_a_limit_that_cannot_be_is_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} must be"):
        ThreadedGenerator(Counter().run(), CancelSource(), **{option: value})  # type: ignore[arg-type]


async def test_what_is_no_iterator_is_refused() -> None:
    with pytest.raises(UsageBug, match="got list"):
        ThreadedGenerator([1, 2], CancelSource())  # type: ignore[arg-type]


async def test_a_reader_that_is_dropped_closes_it_in_its_thread() -> None:
    counter = Counter()
    source = CancelSource()
    stream = ThreadedGenerator(counter.run(), source, batch_limit=4)
    await anext(stream)

    del stream
    gc.collect()
    await wait_all_tasks_blocked()

    assert counter.ended_by == "close"
    assert len(counter.threads) == 1
    assert str(source.token.cancellation) == "cancelled (requested): dropped by its reader"


async def test_its_repr_tells_its_state() -> None:
    source = CancelSource()
    stream = ThreadedGenerator(Counter().run(), source, batch_limit=4)
    states = [repr(stream)]
    await anext(stream)
    await wait_all_tasks_blocked()
    states.append(repr(stream))
    await stream.aclose()
    states.append(repr(stream))

    assert states == [
        "<ThreadedGenerator Counter.run not started: 0 delivered, 0 buffered>",
        "<ThreadedGenerator Counter.run running: 1 delivered, 3 buffered>",
        "<ThreadedGenerator Counter.run ended: 1 delivered, 0 buffered>",
    ]


@pytest.mark.realtime
@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_it_works_on_every_loop(backend: str) -> None:
    options = {"use_uvloop": True} if backend == "uvloop" else {}
    name = "asyncio" if backend == "uvloop" else backend

    async def main() -> None:
        counter = Counter(500)
        stream = ThreadedGenerator(counter.run(), CancelSource(), batch_limit=8)
        assert [item async for item in stream] == list(range(1, 501))

        endless = Counter()
        source = CancelSource()
        stream = ThreadedGenerator(endless.run(), source, batch_limit=8)
        assert await anext(stream) == 1
        source.cancel(Reason.REQUESTED)
        with pytest.raises(StreamCancelled):
            await anext(stream)
        await stream.aclose()
        assert endless.ended_by == "close"
        assert stream.statistics().produced == endless.made

    anyio.run(main, backend=name, backend_options=options)


async def test_a_reader_that_forgets_to_await_is_told_what_to_write() -> None:
    generator = ThreadedGenerator(iter([1]), CancelSource())

    with pytest.raises(UsageBug, match="read it with `async for`"):
        list(generator)
