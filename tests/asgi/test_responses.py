"""Streaming responses: the source is closed on every way out, and no broken stream looks whole."""

import asyncio
import contextlib
import json
import time

import anyio
import pytest
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request

from streamkit._core import Reason, held
from streamkit.asgi import ByteStream, CancellationMiddleware, EventStream, ServerEvent
from streamkit.errors import EngineFailed, StreamCancelled, UsageBug
from streamkit.streams import cancellable
from streamkit.testing import Exchange

both = pytest.mark.parametrize("kind", [ByteStream, EventStream])
wrapped = pytest.mark.parametrize(
    "wrap", [CancellationMiddleware, lambda app: app], ids=["middleware", "bare"]
)
every_server = pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian", "standard"])


@pytest.fixture
def log() -> list[object]:
    return []


def app_of(make_response):
    async def app(scope, receive, send) -> None:
        await Request(scope, receive).body()
        await make_response()(scope, receive, send)

    return app


def worker(log: list[object], tokens: int = 3, step: float = 1.0):
    async def generate():
        try:
            for number in range(tokens):
                await anyio.sleep(step)
                yield f"{number} "
        finally:
            log.append("closed")

    return generate()


@wrapped
async def test_a_stream_that_stays_is_whole(wrap, log):
    bytes_ = await Exchange(wrap(app_of(lambda: ByteStream(worker(log))))).run()
    events = await Exchange(wrap(app_of(lambda: EventStream(worker(log))))).run()

    assert bytes_.text == "0 1 2 "
    assert bytes_.completed
    assert bytes_.headers_received["content-type"] == "application/octet-stream"
    assert [event.data for event in events.events[:-1]] == ["0 ", "1 ", "2 "]
    assert events.events[-1].event == "done"
    assert json.loads(events.events[-1].data) == {"finish_reason": "stop", "tokens": 3}
    assert events.headers_received["content-type"].startswith("text/event-stream")
    assert events.headers_received["cache-control"] == "no-store"
    assert log == ["closed", "closed"]


@both
@wrapped
@every_server
async def test_the_source_is_closed_when_the_client_leaves_in_a_step(kind, wrap, server, log):
    app = wrap(app_of(lambda: kind(cancellable(on_cancel=note(log))(worker)(log, step=60))))
    exchange = Exchange(app, server=server, leaves_after_seconds=2)
    await quietly(exchange)

    assert log == [Reason.CLIENT_DISCONNECT, "closed"]
    assert exchange.ended_at == pytest.approx(2)
    assert held() == []


@both
@wrapped
async def test_the_source_is_closed_when_the_client_leaves_a_blocked_send(kind, wrap, log):
    async def generate():
        async with anyio.create_task_group() as tasks:  # breaks when left in another task
            tasks.start_soon(anyio.sleep_forever)
            driver = asyncio.current_task()
            try:
                while True:
                    yield "x"
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                log.append(asyncio.current_task() is driver)
                tasks.cancel_scope.cancel()

    exchange = Exchange(
        wrap(app_of(lambda: kind(generate()))),
        stops_reading_after_chunks=1,
        leaves_after_seconds=2,
    )
    await quietly(exchange)

    assert log == [True]
    assert exchange.ended_at == pytest.approx(3)


@both
async def test_the_source_is_closed_when_it_is_cancelled_for_another_reason(kind, log):
    app = CancellationMiddleware(app_of(lambda: kind(worker(log, tokens=100))))
    async with Exchange(app) as exchange:
        await exchange.wait_chunks(2)
        app.cancel_all(Reason.DRAIN)

    assert log == ["closed"]
    assert exchange.completed == (kind is EventStream)


@pytest.mark.parametrize("reason", [Reason.DEADLINE, Reason.DRAIN, Reason.REQUESTED])
async def test_an_event_stream_that_is_cut_short_says_so_in_its_last_event(reason, log):
    app = CancellationMiddleware(app_of(lambda: EventStream(worker(log, tokens=100))))
    async with Exchange(app) as exchange:
        await exchange.wait_chunks(2)
        app.cancel_all(reason)

    last = exchange.events[-1]
    assert last.event == "error"
    assert json.loads(last.data)["error"]["type"] == "cancelled"
    assert json.loads(last.data)["error"]["reason"] == reason
    assert exchange.completed


@every_server
@pytest.mark.parametrize("reason", [Reason.DEADLINE, Reason.DRAIN, Reason.REQUESTED])
async def test_an_event_stream_whose_last_event_is_on_its_way_says_nothing_more(
    reason, server, log
):
    app = CancellationMiddleware(app_of(lambda: EventStream(worker(log))))

    async with Exchange(app, server=server, stops_reading_after_chunks=3) as exchange:
        await exchange.wait_blocked()
        app.cancel_all(reason)
        exchange.resume_reading()

    last = [sent.message for sent in exchange.sent if sent.message.get("more_body") is False]
    assert [message["body"].split(b"\r\n")[0] for message in last] == [b"event: done"]
    assert log == ["closed"]


@both
async def test_an_error_before_the_first_chunk_has_its_own_status(kind):
    async def generate():
        await anyio.sleep(1)
        raise KeyError("mine")
        yield

    exchange = Exchange(CancellationMiddleware(app_of(lambda: kind(generate()))))
    with pytest.raises(KeyError, match="mine"):
        await exchange.run()

    assert exchange.status is None


@both
async def test_a_cancel_before_the_first_chunk_has_its_own_status(kind, log):
    app = CancellationMiddleware(app_of(lambda: kind(worker(log, step=60))))
    async with Exchange(app) as exchange:
        await anyio.sleep(1)
        app.cancel_all(Reason.DEADLINE)

    assert exchange.status == 504
    assert exchange.completed


@pytest.mark.parametrize(
    ("error", "kind"),
    [(KeyError("secret"), "internal_error"), (EngineFailed("x"), "engine_failed")],
)
async def test_an_error_after_the_first_chunk_is_the_last_event_without_its_innards(
    error, kind, caplog
):
    async def generate():
        yield "a"
        raise error

    exchange = await Exchange(app_of(lambda: EventStream(generate()))).run()

    assert [event.event for event in exchange.events] == ["message", "error"]
    assert json.loads(exchange.events[-1].data)["error"]["type"] == kind
    assert "secret" not in exchange.text
    assert exchange.completed
    assert "a stream broke off" in caplog.text


async def test_an_http_exception_after_the_first_chunk_is_told_with_the_status_that_came_too_late():
    async def generate():
        yield "a"
        raise HTTPException(402, {"credit": 0})

    exchange = await Exchange(app_of(lambda: EventStream(generate()))).run()

    assert exchange.events[-1].json() == {
        "error": {"type": "http_error", "message": "{'credit': 0}", "status": 402}
    }


async def test_an_error_after_the_first_chunk_leaves_a_byte_stream_incomplete():
    async def generate():
        yield "a"
        raise KeyError("mine")

    exchange = Exchange(app_of(lambda: ByteStream(generate())))
    with pytest.raises(KeyError):
        await exchange.run()

    assert exchange.text == "a"
    assert not exchange.completed


async def test_a_generator_that_swallows_its_cancel_sends_nothing_more(log):
    async def generate():
        for number in range(100):
            try:
                await anyio.sleep(60)
            except BaseException:  # noqa: BLE001 - it is the point
                log.append("swallowed")
            yield f"{number}"

    exchange = Exchange(
        CancellationMiddleware(app_of(lambda: ByteStream(generate()))), leaves_after_seconds=90
    )
    await exchange.run()

    assert log == ["swallowed"]
    assert exchange.ended_at == pytest.approx(90)


@both
async def test_a_source_that_ends_quietly_when_cancelled_does_not_look_whole(kind):
    async def generate():
        yield "half an "
        with contextlib.suppress(BaseException):  # and returns, as engines' iterators do
            await anyio.sleep(60)

    app = CancellationMiddleware(app_of(lambda: kind(generate())))
    async with Exchange(app) as exchange:
        await exchange.wait_chunks(1)
        app.cancel_all(Reason.DEADLINE)

    if kind is ByteStream:
        assert not exchange.completed
    else:
        assert [event.event for event in exchange.events] == ["message", "error"]


async def test_a_generator_that_never_awaits_hears_of_the_client_that_left(log):
    async def generate():
        for number in range(1_000_000):
            log.append(number)
            yield "x"

    app = CancellationMiddleware(app_of(lambda: ByteStream(generate())))
    await Exchange(app, leaves_after_chunks=10).run()

    assert len(log) <= 10 + 16 + 1


@both
async def test_nothing_is_entered_for_a_client_that_left_before(kind, log):
    app = CancellationMiddleware(app_of(lambda: kind(worker(log))))
    async with Exchange(app) as exchange:
        exchange.leave()  # before the app has had its first turn

    assert exchange.status is None
    assert log == []
    assert held() == []


@both
async def test_the_background_task_runs_however_the_stream_ended(kind, log):
    def response():
        return kind(worker(log, tokens=2), background=BackgroundTask(log.append, "background"))

    await Exchange(CancellationMiddleware(app_of(response))).run()
    await Exchange(CancellationMiddleware(app_of(response)), leaves_after_seconds=1.5).run()

    assert log == ["closed", "background"] * 2


@both
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (worker, r"got the function worker itself: call it, worker\(…\)"),
        (["a"], "got list: iter"),
        (3, "got int"),
    ],
    ids=["a function", "a list", "a number"],
)
async def test_what_cannot_be_streamed_is_refused_where_it_is_made(kind, source, message):
    with pytest.raises(UsageBug, match=message):
        kind(source)


@both
async def test_a_coroutine_that_was_not_awaited_is_refused_where_it_is_given(kind):
    async def chat() -> None: ...

    with pytest.raises(UsageBug, match="got a coroutine: await it"):
        kind(chat())


@both
@pytest.mark.parametrize(("leaves_at", "phase"), [(0.5, "prefill"), (1.5, "decode")])
async def test_a_cancel_is_recorded_with_its_phase(kind, leaves_at, phase, log):
    wrapped = cancellable(on_cancel=lambda c: log.append(c.phase))(worker)
    app = CancellationMiddleware(app_of(lambda: kind(wrapped([], tokens=5))))
    await Exchange(app, leaves_after_seconds=leaves_at).run()

    assert log == [phase]


async def test_a_byte_stream_of_something_else_says_what_to_do():
    async def generate():
        yield {"a": 1}

    with pytest.raises(UsageBug, match="sends str or bytes, its source yielded dict; yield text"):
        await Exchange(app_of(lambda: ByteStream(generate()))).run()


# -- heartbeat -----------------------------------------------------------------------------------


async def test_silence_is_filled_with_comments_that_no_client_sees(log):
    response = app_of(lambda: EventStream(worker(log, tokens=2, step=40), heartbeat=15))
    exchange = await Exchange(CancellationMiddleware(response)).run()

    comments = [chunk.at for chunk in exchange.chunks if chunk.data.startswith(b":")]
    assert comments == pytest.approx([15, 30, 55, 70])
    assert [event.event for event in exchange.events] == ["message", "message", "done"]


async def test_a_stream_that_talks_needs_no_comment(log):
    response = app_of(lambda: EventStream(worker(log, tokens=60, step=1), heartbeat=15))
    exchange = await Exchange(response).run()

    assert b":\x20\r\n" not in exchange.data.replace(b"data: ", b"").replace(b"event: ", b"")


async def test_without_a_heartbeat_there_is_silence(log):
    response = app_of(lambda: EventStream(worker(log, tokens=1, step=100), heartbeat=None))
    exchange = await Exchange(response).run()

    assert exchange.chunks[0].at == pytest.approx(100)


async def test_a_heartbeat_of_nothing_is_refused():
    with pytest.raises(UsageBug, match="heartbeat must be above 0 seconds or None, got 0"):
        EventStream(worker([]), heartbeat=0)


async def test_a_heartbeat_that_is_stuck_holds_nothing_up_for_ever(log):
    response = app_of(lambda: EventStream(worker(log, tokens=9, step=40), heartbeat=15))
    app = CancellationMiddleware(response, write_stall=5)
    exchange = await Exchange(app, stops_reading_after_chunks=1).run()

    assert log == ["closed"]
    assert exchange.ended_at <= 36
    assert held() == []


async def test_events_of_the_source_keep_their_fields():
    async def generate():
        yield ServerEvent(data={"n": 1}, event="delta", id="1")

    exchange = await Exchange(app_of(lambda: EventStream(generate()))).run()

    assert exchange.data.startswith(b'event: delta\r\nid: 1\r\ndata: {"n":1}\r\n\r\n')


async def test_the_summary_is_what_the_last_event_says():
    async def generate():
        yield "a"

    summary = {"finish_reason": "length", "tokens": 7}
    exchange = await Exchange(
        app_of(lambda: EventStream(generate(), summary=lambda: summary))
    ).run()

    assert json.loads(exchange.events[-1].data) == summary


# -- generators on threads -----------------------------------------------------------------------


@both
async def test_a_sync_generator_streams_from_its_own_thread(kind):
    def generate():
        yield from ("a", "b")

    exchange = await Exchange(app_of(lambda: kind(generate()))).run()

    texts = (
        [exchange.text] if kind is ByteStream else [event.data for event in exchange.events[:-1]]
    )
    assert "".join(texts) == "ab"
    assert exchange.completed


@both
@pytest.mark.realtime
async def test_a_sync_generator_is_closed_on_its_thread_when_the_client_leaves(kind, log):
    def generate():
        try:
            while True:
                time.sleep(0.001)  # noqa: TID251 - a step that blocks its thread
                yield "x"
        finally:
            log.append("closed")

    app = CancellationMiddleware(app_of(lambda: kind(generate())))
    exchange = Exchange(app, leaves_after_chunks=3)
    with anyio.fail_after(10):
        await exchange.run()

    assert log == ["closed"]


def note(log: list[object]):
    return lambda cancellation: log.append(cancellation.reason)


async def quietly(exchange: Exchange) -> None:
    """Without the middleware a response that is cut short raises; that is not under test here."""
    with contextlib.suppress(StreamCancelled):
        await exchange.run()
