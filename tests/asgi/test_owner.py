"""The owner of receive: one reader, everybody served, and the end of a response is no leave."""

import asyncio

import anyio
import anyio.lowlevel
import fastapi
import pytest
from fastapi import FastAPI
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from streamkit._core import Reason, held, token_of
from streamkit.asgi import CancellationMiddleware, EventStream, request_token, watch_disconnect
from streamkit.errors import UsageBug
from streamkit.streams import cancellable
from streamkit.testing import Exchange

SERVERS = ["uvicorn", "hypercorn", "granian", "standard"]
every_server = pytest.mark.parametrize("server", SERVERS)


class Log(list[object]):
    """What happened inside, in order."""

    def told(self, cancellation) -> None:
        self.append(cancellation.reason)

    def worker(self, tokens: int = 100):
        async def generate():
            try:
                for number in range(tokens):
                    await anyio.sleep(1)
                    yield f"{number} "
            finally:
                self.append("closed")

        return generate


@pytest.fixture
def log() -> Log:
    return Log()


def app_of(endpoint, **options) -> CancellationMiddleware:
    async def app(scope, receive, send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return CancellationMiddleware(app, **options)


# -- one reader ----------------------------------------------------------------------------------


@every_server
@pytest.mark.parametrize("kind", [StreamingResponse, EventSourceResponse])
async def test_the_listeners_of_starlette_and_sse_starlette_are_served_by_one_reader(
    server, kind, log
):
    async def endpoint(request: Request) -> Response:
        await request.body()
        return kind(cancellable(on_cancel=log.told)(log.worker())())

    exchange = Exchange(app_of(endpoint), server=server, leaves_after_seconds=2.5)
    await exchange.run()

    assert log == [Reason.CLIENT_DISCONNECT, "closed"]
    assert exchange.concurrent_receives == 1
    assert exchange.ended_at == pytest.approx(2.5)
    assert exchange.outcome == "returned"
    assert held() == []


@every_server
async def test_pollers_and_parked_readers_all_hear_of_it(server):
    heard: list[str] = []

    async def endpoint(request: Request) -> Response:
        await request.body()

        async def park() -> None:
            message = await request.receive()
            heard.append(message["type"])

        async def poll() -> None:
            while not await request.is_disconnected():  # noqa: ASYNC110 - users do
                await anyio.sleep(0.5)
            heard.append("polled")

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(park)
                tasks.start_soon(poll)
        return PlainTextResponse("late")

    exchange = Exchange(app_of(endpoint), server=server, leaves_after_seconds=1.2)
    await exchange.run()

    assert sorted(heard) == ["http.disconnect"] * 2 + ["polled"] * 2


@every_server
async def test_a_poll_before_the_body_was_read_loses_nothing_of_it(server):
    async def endpoint(request: Request) -> Response:
        for _ in range(5):
            assert not await request.is_disconnected()
        return PlainTextResponse(str(len(await request.body())))

    pieces = [b"x" * 50_000, b"y" * 50_000, b"z" * 50_000]
    exchange = await Exchange(app_of(endpoint), server=server, body=pieces).run()

    assert exchange.text == "150000"


async def test_the_body_is_read_ahead_only_to_a_bound(log):
    async def endpoint(request: Request) -> Response:
        await anyio.sleep(1)
        log.append(sum(r.message["type"] == "http.request" for r in exchange.received))
        return PlainTextResponse(str(len(await request.body())))

    exchange = Exchange(app_of(endpoint), body=[b"x" * 600_000] * 10)
    await exchange.run()

    assert log == [2]  # 1,200,000 bytes: the second piece went over the mark of 1 MiB
    assert exchange.text == "6000000"


@every_server
async def test_a_client_that_leaves_is_seen_behind_a_long_prompt_that_nobody_read(server, log):
    async def endpoint(request: Request) -> Response:
        return EventStream(cancellable(on_cancel=log.told)(log.worker())())

    exchange = Exchange(
        app_of(endpoint), server=server, body=[b"x" * 60_000] * 10, leaves_after_seconds=2.5
    )
    await exchange.run()

    assert log == [Reason.CLIENT_DISCONNECT, "closed"]
    assert exchange.ended_at == pytest.approx(2.5)


async def test_a_client_that_leaves_while_its_body_is_read_has_left(log):
    async def endpoint(request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:
            log.append("disconnected")
            raise
        return PlainTextResponse("never")

    app = app_of(endpoint)
    exchange = Exchange(app, body=b"{", leaves_before_body_ends=True, leaves_after_seconds=1)
    await exchange.run()

    assert log == ["disconnected"]
    assert exchange.outcome == "returned"  # no traceback for a client that leaves


async def test_reading_waits_for_the_app_when_the_client_waits_for_the_word_to_go_on():
    asked: list[int] = []

    async def endpoint(request: Request) -> Response:
        await anyio.sleep(1)
        asked.append(exchange.receiving + len(exchange.received))
        return PlainTextResponse(str(len(await request.body())))

    exchange = Exchange(app_of(endpoint), body=b"abc", headers={"expect": "100-continue"})
    await exchange.run()

    assert asked == [0]
    assert exchange.text == "3"


async def test_an_app_that_asks_for_the_body_first_of_all_gives_its_word_too():
    async def app(scope, receive, send) -> None:
        body = (await receive())["body"]
        await PlainTextResponse(body)(scope, receive, send)

    exchange = Exchange(
        CancellationMiddleware(app), body=b"abc", headers={"expect": "100-continue"}
    )
    await exchange.run()

    assert exchange.text == "abc"


# -- who ended it --------------------------------------------------------------------------------


@every_server
async def test_a_response_that_is_complete_is_never_taken_for_a_client_that_left(server, log):
    async def endpoint(request: Request) -> Response:
        request_token(request).add_listener(log.told)

        async def background() -> None:
            await anyio.sleep(5)
            log.append(request_token(request).cancelled)

        return PlainTextResponse("done", background=BackgroundTask(background))

    exchange = Exchange(app_of(endpoint), server=server, leaves_after_seconds=2)
    await exchange.run()

    assert exchange.completed
    assert log == [False]


@every_server
async def test_a_background_task_still_runs_when_the_client_of_a_stream_left(server, log):
    async def endpoint(request: Request) -> Response:
        background = BackgroundTask(log.append, "background")
        stream = cancellable(on_cancel=log.told)(log.worker())()
        return StreamingResponse(stream, background=background)

    await Exchange(app_of(endpoint), server=server, leaves_after_seconds=2.5).run()

    assert log == [Reason.CLIENT_DISCONNECT, "closed", "background"]


async def test_below_base_http_middleware_the_token_knows_what_is_disconnected_does_not(log):
    async def dispatch(request, call_next):
        return await call_next(request)

    async def endpoint(request: Request) -> Response:
        await request.body()
        while not request_token(request).cancelled:
            log.append(await request.is_disconnected())
            await anyio.sleep(1)
        return PlainTextResponse("late")

    app = Starlette(
        routes=[Route("/", endpoint, methods=["POST"])],
        middleware=[Middleware(CancellationMiddleware), Middleware(BaseHTTPMiddleware, dispatch)],
    )
    exchange = await Exchange(app, leaves_after_seconds=2.5).run()

    assert log == [False, False, False]
    assert exchange.ended_at == pytest.approx(3)


async def test_a_stream_below_base_http_middleware_stops_when_its_client_leaves(log):
    async def dispatch(request, call_next):
        return await call_next(request)

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(cancellable(on_cancel=log.told)(log.worker())())

    app = Starlette(
        routes=[Route("/", endpoint, methods=["POST"])],
        middleware=[Middleware(CancellationMiddleware), Middleware(BaseHTTPMiddleware, dispatch)],
    )
    await Exchange(app, leaves_after_seconds=2.5).run()

    assert log == [Reason.CLIENT_DISCONNECT, "closed"]


async def test_a_server_that_cancels_the_task_is_going_down_and_the_client_did_not_leave(log):
    async def endpoint(request: Request) -> Response:
        request_token(request).add_listener(log.told)
        await anyio.sleep(60)
        return PlainTextResponse("never")

    async with Exchange(app_of(endpoint)) as exchange:
        await anyio.sleep(1)
        exchange.cancel()
        await exchange.wait_ended()

    assert log == [Reason.DRAIN]


# -- send ----------------------------------------------------------------------------------------


async def test_a_write_that_stalls_is_cancelled_after_the_limit(log):
    async def endpoint(request: Request) -> Response:
        return StreamingResponse(cancellable(on_cancel=log.told)(log.worker())())

    app = app_of(endpoint, write_stall=10)
    exchange = await Exchange(app, stops_reading_after_chunks=2).run()

    assert log == [Reason.WRITE_STALLED, "closed"]
    assert 13 <= exchange.ended_at <= 13.5 + 0.01  # the third token at 3 s, 10 s, one sweep
    assert not exchange.completed


async def test_a_whole_answer_that_nobody_reads_is_given_up_after_the_limit(log):
    async def endpoint(request: Request) -> Response:
        request_token(request).add_listener(log.told)
        return Response(b"all of it in one piece")

    app = app_of(endpoint, write_stall=10)
    exchange = await Exchange(app, stops_reading_after_chunks=0).run()

    assert log == [Reason.WRITE_STALLED]
    assert 10 <= exchange.ended_at <= 10.5 + 0.01


async def test_a_client_that_reads_slowly_but_reads_is_no_stall(log):
    async def endpoint(request: Request) -> Response:
        return StreamingResponse(cancellable(on_cancel=log.told)(log.worker(tokens=3))())

    async with Exchange(app_of(endpoint, write_stall=10)) as exchange:
        await exchange.wait_chunks(1)
        exchange.stop_reading()
        await exchange.wait_blocked()
        await anyio.sleep(9)
        exchange.resume_reading()

    assert log == ["closed"]
    assert exchange.completed


async def test_a_plain_app_that_is_blocked_in_send_is_released_when_its_client_leaves(log):
    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            log.append(anyio.current_time())

    exchange = Exchange(
        CancellationMiddleware(app), stops_reading_after_chunks=1, leaves_after_seconds=2
    )
    await exchange.run()

    assert log == [0, 2, 2]


async def test_a_server_whose_send_raises_has_told_us_that_the_client_left(log):
    async def app(scope, receive, send) -> None:
        token_of_scope(scope).add_listener(log.told)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        log.append("sent")

    async def broken_send(message) -> None:
        if message["type"] == "http.response.body":
            raise RuntimeError("unable to perform operation; the handler is closed")

    async def silent_receive():
        await anyio.sleep_forever()

    scope = {"type": "http", "headers": [], "path": "/", "asgi": {"spec_version": "2.3"}}
    await CancellationMiddleware(app)(scope, silent_receive, broken_send)

    assert log == [Reason.CLIENT_DISCONNECT, "sent"]


def token_of_scope(scope):
    token = token_of(Request(scope))
    assert token is not None
    return token


async def test_a_stream_blocked_in_send_is_closed_in_the_task_that_drove_it(log):
    async def generate():
        driver = asyncio.current_task()
        async with asyncio.timeout(100):  # spans the yields, as users' timeouts do
            try:
                while True:
                    yield "x"
            finally:
                await anyio.sleep(1)  # cleanup may await
                log.append(asyncio.current_task() is driver)

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(cancellable(generate()))

    exchange = Exchange(app_of(endpoint), stops_reading_after_chunks=1, leaves_after_seconds=2)
    await exchange.run()

    assert log == [True]
    assert exchange.ended_at == pytest.approx(3)
    assert held() == []


async def test_a_framework_that_cancels_a_blocked_send_leaves_no_generator_behind(log):
    async def generate():
        driver = asyncio.current_task()
        try:
            while True:
                yield "x"
        finally:
            log.append(asyncio.current_task() is driver)

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(cancellable(generate()))

    app = app_of(endpoint)
    async with Exchange(app, stops_reading_after_chunks=1) as exchange:
        await exchange.wait_blocked()
        app.cancel_all(Reason.DEADLINE)  # the client is there: only Starlette ends the send
        await exchange.wait_ended()

    assert log == [True]


async def test_a_server_that_knows_of_no_disconnect_gets_an_answer_and_makes_none_of_its_own(log):
    async def app(scope, receive, send) -> None:
        token_of_scope(scope).add_listener(log.told)
        while (await receive())["type"] != "http.disconnect":
            pass

    async def leave_unseen():
        return {"type": "http.disconnect"}

    async def note(message) -> None:
        log.append(message.get("status", "body"))
        raise RuntimeError("unable to perform operation; the handler is closed")

    scope = {"type": "http", "headers": [], "path": "/", "asgi": {"spec_version": "2.3"}}
    await CancellationMiddleware(app)(scope, leave_unseen, note)

    assert log == [Reason.CLIENT_DISCONNECT, 499]


async def test_an_app_that_gives_up_quietly_is_answered_for():
    async def app(scope, receive, send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    middleware = CancellationMiddleware(app)
    async with Exchange(middleware) as exchange:
        await anyio.sleep(1)
        middleware.cancel_all(Reason.DEADLINE)

    assert exchange.status == 504
    assert exchange.completed


async def test_a_generator_that_never_awaits_hears_of_the_client_that_left(log):
    async def generate():
        for number in range(1_000_000):
            log.append(number)
            yield "x"

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(cancellable(generate()))

    await Exchange(app_of(endpoint), leaves_after_chunks=10).run()

    assert len(log) <= 10 + 16 + 1


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.REQUESTED, 499),
        (Reason.DEADLINE, 504),
        (Reason.DRAIN, 503),
        (Reason.SHED, 503),
    ],
)
async def test_a_cancelled_request_that_can_still_be_answered_is(reason, status):
    @cancellable
    async def endpoint(request: Request) -> Response:
        await anyio.sleep(60)
        return PlainTextResponse("never")

    app = app_of(endpoint)
    async with Exchange(app) as exchange:
        await anyio.sleep(1)
        assert app.cancel_all(reason) == 1

    assert exchange.status == status
    assert exchange.completed
    assert f'"code":"{reason}"' in exchange.text
    assert ("retry-after" in exchange.headers_received) == (status == 503)


async def test_after_the_first_byte_a_cancel_leaves_the_body_incomplete(log):
    async def endpoint(request: Request) -> Response:
        return StreamingResponse(cancellable(on_cancel=log.told)(log.worker())())

    app = app_of(endpoint)
    async with Exchange(app) as exchange:
        await exchange.wait_chunks(2)
        app.cancel_all(Reason.DEADLINE)

    assert exchange.text == "0 1 "
    assert not exchange.completed
    assert log == [Reason.DEADLINE, "closed"]


async def test_a_coroutine_endpoint_is_cancelled_when_the_client_leaves(log):
    @cancellable(on_cancel=log.told)
    async def endpoint(request: Request) -> Response:
        await request.json()
        await anyio.sleep(60)
        return JSONResponse({})

    exchange = await Exchange(app_of(endpoint), json={}, leaves_after_seconds=2).run()

    assert log == [Reason.CLIENT_DISCONNECT]
    assert exchange.ended_at == pytest.approx(2)
    assert exchange.outcome == "returned"


async def test_a_cancel_that_task_groups_have_wrapped_is_still_a_cancel(log):
    stream = log.worker()

    async def app(scope, receive, send) -> None:
        async def read() -> None:
            async for _ in cancellable(on_cancel=log.told)(stream)():
                pass

        async with anyio.create_task_group() as tasks:  # as FastAPI runs its own event streams
            tasks.start_soon(read)

    exchange = await Exchange(CancellationMiddleware(app), leaves_after_seconds=2.5).run()

    assert log == [Reason.CLIENT_DISCONNECT, "closed"]
    assert exchange.outcome == "returned"


async def test_an_error_beside_a_cancel_is_not_lost(log):
    async def endpoint(request: Request) -> Response:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            request_token(request).raise_if_cancelled()
            raise KeyError("mine")

    async def fail() -> None:
        raise KeyError("mine, too")

    with pytest.raises(ExceptionGroup):
        await Exchange(app_of(endpoint)).run()


async def test_fastapi_injects_into_what_is_decorated(log):
    app = FastAPI()
    app.add_middleware(CancellationMiddleware)

    async def resource():
        try:
            yield 5
        finally:
            log.append("released")

    @app.post("/embed")
    @cancellable(on_cancel=log.told)
    async def embed(request: Request, seconds: int, value: int = fastapi.Depends(resource)):
        await anyio.sleep(seconds)
        return {"value": value}

    stays = await Exchange(app, path="/embed?seconds=2").run()
    leaves = await Exchange(app, path="/embed?seconds=9", leaves_after_seconds=1).run()

    assert stays.text == '{"value":5}'
    assert log == ["released", Reason.CLIENT_DISCONNECT, "released"]
    assert leaves.ended_at - leaves.started_at == pytest.approx(1)


async def test_an_error_of_the_app_is_the_apps(log):
    async def endpoint(request: Request) -> Response:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await Exchange(app_of(endpoint)).run()


# -- watch_disconnect ----------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [CancellationMiddleware, lambda app: app], ids=["ours", "bare"])
@every_server
async def test_a_watched_block_is_cut_short_when_the_client_leaves(wrap, server, log):
    async def app(scope, receive, send) -> None:
        request = Request(scope, receive, send)
        try:
            async with watch_disconnect(request):
                assert await request.json() == {"a": 1}
                await anyio.sleep(60)
        finally:
            log.append(anyio.current_time())

    exchange = Exchange(wrap(app), json={"a": 1}, server=server, leaves_after_seconds=2)
    try:
        await exchange.run()
    except Exception as error:  # noqa: BLE001 - without the middleware it comes out here
        log.append(type(error).__name__)

    assert log[0] == pytest.approx(2)
    assert exchange.concurrent_receives <= 1


async def test_a_watched_block_that_comes_to_its_end_is_left_alone(log):
    async def app(scope, receive, send) -> None:
        async with watch_disconnect(Request(scope, receive, send)) as token:
            await anyio.sleep(1)
        log.append(token.cancelled)
        await PlainTextResponse("ok")(scope, receive, send)

    exchange = await Exchange(app).run()

    assert log == [False]
    assert exchange.text == "ok"


async def test_a_request_without_the_middleware_has_no_token_and_the_error_says_what_to_do():
    with pytest.raises(UsageBug, match=r"install streamkit\.asgi\.CancellationMiddleware"):
        request_token(Request({"type": "http"}))


async def test_a_client_that_leaves_at_the_end_of_the_stream_is_no_leak(log):
    app = app_of(endpoint_of(log))
    for seconds in (99.9, 100, 100.1):
        await Exchange(app, leaves_after_seconds=seconds).run()
    await anyio.lowlevel.checkpoint()

    assert log.count("closed") == 3
    assert not app.live


def endpoint_of(log: Log):
    async def endpoint(request: Request) -> Response:
        return StreamingResponse(cancellable(log.worker()()))

    return endpoint
