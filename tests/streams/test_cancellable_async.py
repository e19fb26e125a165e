"""`cancellable` over async generators and coroutines: cut short where they wait, once, told why."""

import contextvars
import gc
import inspect

import anyio
import pytest

from streamkit._core import CancelSource, Reason, current_token, held, token_var, wait_held
from streamkit.errors import StreamCancelled, UsageBug
from streamkit.streams import CancellableStream, cancellable, drive


class Work:
    """An async generator that notes what happens to it."""

    def __init__(self, tokens: int = 5, step: float = 1.0) -> None:
        self.tokens = tokens
        self.step = step
        self.log: list[object] = []

    async def run(self):
        self.log.append("entered")
        try:
            for number in range(self.tokens):
                await anyio.sleep(self.step)
                yield number
        finally:
            self.log.append("closed")


def told(log: list[object]):
    return lambda cancellation: log.append(cancellation.reason)


async def test_a_stream_that_stays_is_whole_and_nobody_is_told():
    work = Work()
    stream = cancellable(on_cancel=told(work.log))(work.run)()

    assert [item async for item in stream] == [0, 1, 2, 3, 4]
    assert work.log == ["entered", "closed"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_cancel_ends_the_step_that_is_running_and_closes_the_generator():
    work, source = Work(), CancelSource()
    token_var.set(source.token)
    stream = cancellable(on_cancel=told(work.log))(work.run)()
    source.cancel_after(2.5)

    items = []

    async def read() -> None:
        async for item in stream:
            items.append(item)  # noqa: PERF401 - what came before the error must not be lost

    with pytest.raises(StreamCancelled) as caught:
        await read()

    assert items == [0, 1]
    assert caught.value.cancellation.reason is Reason.DEADLINE
    assert work.log == ["entered", Reason.DEADLINE, "closed"]


async def test_a_cancel_is_recorded_with_its_phase():
    phases = []

    @cancellable(on_cancel=lambda c: phases.append(c.phase))
    async def embed() -> None:
        await anyio.sleep(60)

    for seconds in (0.5, 1.5):
        stream = cancellable(on_cancel=lambda c: phases.append(c.phase))(Work().run)()
        stream.source.cancel_after(seconds)
        with pytest.raises(StreamCancelled):
            assert [item async for item in stream] == []
    source = CancelSource()
    token_var.set(source.token)
    source.cancel_after(1)
    with pytest.raises(StreamCancelled):
        await embed()

    assert phases == ["prefill", "decode", "prefill"]


async def test_after_a_cancel_the_stream_stays_cancelled():
    work = Work()
    stream = cancellable(work.run())
    assert await anext(stream) == 0
    stream.source.cancel(Reason.REQUESTED)

    for _ in range(2):
        with pytest.raises(StreamCancelled):
            await anext(stream)
    assert work.log == ["entered", "closed"]


async def test_a_generator_left_at_a_yield_is_closed_though_its_reader_never_comes_back():
    work = Work()
    stream = cancellable(work.run())
    await anext(stream)

    stream.source.cancel(Reason.REQUESTED)
    await anyio.sleep(6)  # the grace for the reader, which is busy elsewhere all the time

    assert work.log == ["entered", "closed"]


@pytest.mark.asyncio_only
async def test_a_generator_left_at_a_yield_is_closed_as_soon_as_its_reader_has_ended():
    work = Work()
    stream = cancellable(work.run())

    async def read_one() -> None:
        await anext(stream)
        stream.source.cancel(Reason.REQUESTED)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_one)
    left_at = anyio.current_time()
    await wait_held(10)

    assert work.log == ["entered", "closed"]
    assert anyio.current_time() == left_at


async def test_a_stream_cancelled_before_it_began_never_enters_its_generator():
    work, source = Work(), CancelSource()
    token_var.set(source.token)
    stream = cancellable(on_cancel=told(work.log))(work.run)()

    source.cancel(Reason.CLIENT_DISCONNECT)
    with pytest.raises(StreamCancelled):
        await anext(stream)

    assert work.log == [Reason.CLIENT_DISCONNECT]
    await wait_held(1)


async def test_closing_a_stream_early_counts_as_cut_short():
    work = Work()
    stream = cancellable(on_cancel=told(work.log))(work.run)()
    await anext(stream)
    await stream.aclose()
    await stream.aclose()

    assert work.log == ["entered", Reason.REQUESTED, "closed"]


async def test_closing_a_stream_that_ended_tells_nobody():
    work = Work(tokens=1)
    stream = cancellable(on_cancel=told(work.log))(work.run)()
    async for _ in stream:
        pass
    await stream.aclose()

    assert work.log == ["entered", "closed"]


async def test_a_stream_may_be_closed_while_another_task_reads_it():
    work = Work(step=60)
    stream = cancellable(work.run())
    seen = []

    async def read() -> None:
        try:
            await anext(stream)
        except StreamCancelled as error:
            seen.append(error.cancellation.reason)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(1)
        await stream.aclose()
        assert work.log == ["entered", "closed"]

    assert seen == [Reason.REQUESTED]


async def test_two_readers_at_a_time_are_refused():
    stream = cancellable(Work().run())

    async def read() -> None:
        await anext(stream)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(0.5)
        with pytest.raises(RuntimeError, match="already being read"):
            await anext(stream)


async def test_a_reader_that_is_cancelled_from_outside_has_the_engine_told():
    work = Work(step=60)
    stream = cancellable(on_cancel=told(work.log))(work.run)()
    with anyio.move_on_after(1):
        await anext(stream)

    assert work.log == ["entered", "closed", Reason.REQUESTED]
    assert stream.token.cancellation is not None
    assert "the task reading it ended" in stream.token.cancellation.detail


async def test_an_engine_that_ends_quietly_when_cancelled_does_not_make_a_stream_look_whole():
    source = CancelSource()
    token_var.set(source.token)

    @cancellable
    async def generate():
        yield 1
        source.cancel(Reason.REQUESTED)  # and returns, as if that were all

    @cancellable
    async def embed() -> int:
        source.cancel(Reason.REQUESTED)
        return 1

    stream = generate()
    await anext(stream)
    with pytest.raises(StreamCancelled):
        await anext(stream)
    with pytest.raises(StreamCancelled):
        await embed()


async def test_an_error_of_the_generator_goes_to_its_reader_and_is_no_cancel():
    log: list[object] = []

    @cancellable(on_cancel=told(log))
    async def generate():
        yield 1
        raise KeyError("mine")

    stream = generate()
    await anext(stream)
    with pytest.raises(KeyError, match="mine"):
        await anext(stream)

    assert log == []
    assert stream.token.finished


@pytest.mark.asyncio_only  # trio repeats a cancel at each checkpoint: there, cleanup needs a shield
async def test_cleanup_that_awaits_runs_to_its_end():
    log: list[object] = []

    @cancellable
    async def generate():
        try:
            await anyio.sleep(60)
            yield
        finally:
            await anyio.sleep(2)
            log.append("cleaned up")

    stream = generate()
    stream.source.cancel_after(1)
    with pytest.raises(StreamCancelled):
        await anext(stream)

    assert log == ["cleaned up"]


async def test_cleanup_that_never_ends_is_given_up_and_reported(caplog):
    async def generate():
        try:
            yield 1
        finally:
            await anyio.sleep_forever()

    stream = cancellable(generate(), close_grace=2)
    await anext(stream)
    before = anyio.current_time()
    await stream.aclose()

    assert anyio.current_time() == pytest.approx(before + 2)
    assert "did not end within 2 s and was given up" in caplog.text


async def test_cleanup_that_fails_is_logged_and_hides_nothing(caplog):
    async def generate():
        try:
            yield 1
        finally:
            raise KeyError("in finally")

    stream = cancellable(generate())
    await anext(stream)
    stream.source.cancel(Reason.REQUESTED)
    with pytest.raises(StreamCancelled):
        await anext(stream)

    assert "the cleanup of a cancelled stream failed" in caplog.text


async def test_a_step_that_swallows_its_cancel_is_cancelled_again():
    swallowed = []

    async def generate():
        for _ in range(3):
            try:
                await anyio.sleep(60)
            except BaseException:  # noqa: BLE001 - it is the point
                swallowed.append(True)
        yield 1

    stream = cancellable(generate())
    stream.source.cancel_after(1)
    with pytest.raises(StreamCancelled):
        await anext(stream)

    assert len(swallowed) == 3


@pytest.mark.asyncio_only  # each step has a scope of its own on trio, which nothing may span
async def test_what_spans_a_yield_stays_in_one_task():
    seen = []

    @cancellable
    async def generate():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            with anyio.fail_after(100):
                yield 1
                await anyio.sleep(60)
            tasks.cancel_scope.cancel()
        seen.append("never")

    stream = generate()
    stream.source.cancel_after(1)
    with pytest.raises(StreamCancelled):
        async for _ in stream:
            pass

    assert seen == []


async def test_inside_a_stream_the_current_token_is_the_streams_and_outside_it_is_not():
    async def generate():
        yield current_token()

    stream = cancellable(generate())
    outside = current_token()

    assert await anext(stream) is stream.token
    assert current_token() is outside


async def test_context_variables_span_yields():
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    async def generate():
        variable.set(1)
        yield
        yield variable.get()

    stream = cancellable(generate())
    await anext(stream)

    assert await anext(stream) == 1


async def test_on_cancel_may_be_async_and_is_not_cut_by_the_cancel():
    log: list[object] = []

    async def on_cancel(cancellation) -> None:
        await anyio.sleep(1)
        log.append(cancellation.reason)

    stream = cancellable(on_cancel=on_cancel)(Work(step=60).run)()
    stream.source.cancel_after(1)
    with pytest.raises(StreamCancelled):
        await anext(stream)
    await wait_held(5)

    assert log == [Reason.DEADLINE]


async def test_on_cancel_that_fails_is_logged(caplog):
    def on_cancel(_: object) -> None:
        raise KeyError("mine")

    stream = cancellable(on_cancel=on_cancel)(Work().run)()
    await stream.aclose()

    assert "a cancel listener failed" in caplog.text


async def test_an_engine_is_told_before_anyone_else_and_with_the_streams_token():
    log: list[object] = []

    class Engine:
        def abort_for(self, token, cancellation) -> None:
            log.append(("engine", token, cancellation.reason))

    @cancellable(Engine(), on_cancel=told(log))
    async def generate():
        yield 1
        yield 2

    stream = generate()
    await anext(stream)
    stream.source.cancel(Reason.SHED)

    assert log == [("engine", stream.token, Reason.SHED), Reason.SHED]
    await stream.aclose()


async def test_a_stream_over_an_iterator_without_aclose_needs_none():
    class Numbers:
        def __aiter__(self):
            return self

        async def __anext__(self):
            await anyio.sleep(1)
            return 1

    stream = cancellable(Numbers())
    await anext(stream)
    await stream.aclose()

    with pytest.raises(StreamCancelled):
        await anext(stream)


async def test_a_dropped_stream_leaves_nothing_on_its_parents_token():
    source = CancelSource()
    token_var.set(source.token)
    stream = cancellable(Work(tokens=1).run())
    async for _ in stream:
        pass
    del stream
    gc.collect()

    assert not source.token.has_listeners


# -- coroutines ----------------------------------------------------------------------------------


async def test_a_coroutine_is_cut_where_it_waits_and_says_so():
    log: list[object] = []

    @cancellable(on_cancel=told(log))
    async def embed() -> int:
        await anyio.sleep(60)
        return 1

    source = CancelSource()
    token_var.set(source.token)
    source.cancel_after(1)

    with pytest.raises(StreamCancelled):
        await embed()
    assert log == [Reason.DEADLINE]


async def test_a_coroutine_called_after_the_cancel_is_never_entered():
    entered = []

    @cancellable
    async def embed() -> None:
        entered.append(True)
        await anyio.sleep(60)

    source = CancelSource()
    token_var.set(source.token)
    source.cancel(Reason.CLIENT_DISCONNECT)
    begun = anyio.current_time()

    with pytest.raises(StreamCancelled):
        await embed()
    with pytest.raises(StreamCancelled):
        await cancellable(embed.__wrapped__())

    gc.collect()  # a coroutine that nobody awaited would say so here, as an error
    assert entered == []
    assert anyio.current_time() == begun


async def test_a_stream_that_is_read_whole_after_the_cancel_never_enters_its_generator():
    work, source = Work(step=60), CancelSource()
    token_var.set(source.token)
    stream = cancellable(work.run())
    source.cancel(Reason.CLIENT_DISCONNECT)

    async def read(items) -> None:
        async for _ in items:
            pass

    with pytest.raises(StreamCancelled):
        await drive(stream, read)
    await wait_held(1)

    assert work.log == []


async def test_a_coroutine_that_stays_answers_and_nobody_is_told_afterwards():
    log: list[object] = []

    @cancellable(on_cancel=told(log))
    async def embed() -> int:
        await anyio.sleep(1)
        return 42

    source = CancelSource()
    token_var.set(source.token)

    assert await embed() == 42
    assert not source.token.has_listeners
    source.cancel(Reason.CLIENT_DISCONNECT)
    assert log == []


async def test_a_coroutine_whose_task_is_cancelled_tells_too():
    log: list[object] = []

    @cancellable(on_cancel=told(log))
    async def embed() -> None:
        await anyio.sleep(60)

    with anyio.move_on_after(1):
        await embed()

    assert log == [Reason.REQUESTED]


async def test_a_coroutine_at_hand_can_be_wrapped():
    async def embed() -> int:
        await anyio.sleep(1)
        return 42

    assert await cancellable(embed()) == 42


async def test_a_stream_that_a_coroutine_returns_is_still_cancelled_with_its_request():
    work, source = Work(step=60), CancelSource()
    token_var.set(source.token)

    @cancellable
    async def chat() -> object:
        return cancellable(on_cancel=told(work.log))(work.run)()

    stream = await chat()
    source.cancel_after(1)
    with pytest.raises(StreamCancelled):
        await anext(stream)

    assert work.log == ["entered", Reason.DEADLINE, "closed"]


async def test_an_iterator_that_a_coroutine_returns_becomes_a_stream():
    work = Work(tokens=2)

    @cancellable
    async def chat() -> object:
        return work.run()

    stream = await chat()

    assert isinstance(stream, CancellableStream)
    assert [item async for item in stream] == [0, 1]


class AskedRequest:
    """What a framework without our middleware hands to an endpoint."""

    def __init__(self, leaves_at: float) -> None:
        self.leaves_at = leaves_at
        self.scope: dict[str, object] = {}

    async def is_disconnected(self) -> bool:
        return anyio.current_time() >= self.leaves_at


# -- as a decorator ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bare", "called"])
async def test_the_signature_stays(form: str):
    async def generate(prompt: str, *, limit: int = 3):
        """Docs."""
        yield prompt

    decorated = cancellable(generate) if form == "bare" else cancellable()(generate)

    assert inspect.signature(decorated) == inspect.signature(generate)
    assert decorated.__name__ == "generate"
    assert decorated.__doc__ == "Docs."
    assert [item async for item in decorated("a")] == ["a"]


async def test_a_decorated_coroutine_is_still_a_coroutine_function():
    @cancellable
    async def embed() -> None: ...

    assert inspect.iscoroutinefunction(embed)


async def test_methods_can_be_decorated():
    class Model:
        @cancellable
        async def predict(self, count: int):
            for number in range(count):
                yield number

    assert [item async for item in Model().predict(3)] == [0, 1, 2]


async def test_what_cannot_be_wrapped_is_refused_by_name():
    with pytest.raises(UsageBug, match=r"takes a function, an async iterator.*got int"):
        cancellable(3)


async def test_nothing_is_held_after_all_this():
    assert held() == []


async def test_a_stream_that_broke_while_it_was_read_whole_has_ended_and_not_been_cancelled():
    source = CancelSource()
    stream = CancellableStream(Work().run(), source)

    async def read(items) -> None:
        async for _ in items:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await stream.drive(read)

    assert source.token.finished
    assert not source.cancel(Reason.REQUESTED)


async def test_a_stream_that_is_cancelled_before_it_is_read_lets_go_of_what_its_iterator_holds():
    class Held:
        closed = False

        def __aiter__(self):
            return self

        async def __anext__(self) -> int:
            return 1

        async def aclose(self) -> None:
            self.closed = True

    source, items = CancelSource(), Held()
    stream = CancellableStream(items, source)

    source.cancel(Reason.REQUESTED)

    assert await wait_held(1) == []
    assert items.closed, stream
