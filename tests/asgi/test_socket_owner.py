"""A websocket's client leaves: the work stops at once, and the app hears of it in its own words."""

import asyncio
import socket

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from streamkit._core import Reason, held, token_of, wait_held
from streamkit.asgi import CancellationMiddleware, request_token, watch_disconnect
from streamkit.engines import FakeEngine
from streamkit.errors import StreamCancelled, UsageBug
from streamkit.streams import cancellable
from streamkit.testing import every_moment
from tests.asgi.socket_exchange import SocketExchange


def served(endpoint, **options) -> CancellationMiddleware:
    async def app(scope, receive, send) -> None:
        await endpoint(WebSocket(scope, receive, send))

    return CancellationMiddleware(app, **options)


@pytest.fixture
def log() -> list[object]:
    return []


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


async def sleep_long(websocket: WebSocket) -> None:
    await websocket.accept()
    await anyio.sleep(60)


# -- the client leaves -----------------------------------------------------------------------------


async def test_a_websocket_has_a_token_that_is_told_how_its_client_left(log):
    async def endpoint(websocket: WebSocket) -> None:
        token = token_of(websocket)
        assert token is request_token(websocket)
        token.add_listener(lambda c: log.append((c.reason, c.at, c.detail)))
        await echo(websocket)

    async with SocketExchange(served(endpoint)) as exchange:
        await anyio.sleep(2)
        exchange.leave(1001, "tab closed")

    [(reason, at, detail)] = log
    assert (reason, at) == (Reason.CLIENT_DISCONNECT, 2)
    assert "1001: tab closed" in detail


@pytest.mark.parametrize("silent", [False, True], ids=["uvicorn", "hypercorn"])
async def test_what_waits_elsewhere_is_interrupted_when_the_client_leaves(silent, log):
    @cancellable(on_cancel=lambda c: log.append(c.reason))
    async def endpoint(websocket: WebSocket) -> None:
        try:
            await sleep_long(websocket)
        finally:
            await anyio.sleep(1)  # cleanup may await
            log.append(anyio.current_time())

    exchange = SocketExchange(served(endpoint), silent=silent)
    async with exchange:
        await anyio.sleep(2)
        exchange.vanish()

    assert log == [Reason.CLIENT_DISCONNECT, 3]
    assert exchange.outcome == "returned"


async def test_a_watched_block_is_cut_short_when_the_client_leaves(log):
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(StreamCancelled):
            async with watch_disconnect(websocket):
                await anyio.sleep(60)
        log.append(anyio.current_time())

    async with SocketExchange(served(endpoint)) as exchange:
        await anyio.sleep(2)
        exchange.leave()

    assert log == [2]


@pytest.mark.parametrize("wrap", [cancellable, lambda endpoint: endpoint], ids=["ours", "plain"])
async def test_code_that_is_parked_in_receive_hears_of_it_as_it_always_did(wrap, log):
    @wrap
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as error:
            await anyio.sleep(1)  # what a user's handler does then may await
            log.append((error.code, error.reason, anyio.current_time()))

    async with SocketExchange(served(endpoint)) as exchange:
        await anyio.sleep(2)
        exchange.leave(1000, "bye")

    assert log == [(1000, "bye", 3)]


async def test_what_the_client_sent_before_it_left_can_be_read_first(log):
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await anyio.sleep(5)
        try:
            while True:
                log.append(await websocket.receive_text())
        except WebSocketDisconnect as error:
            log.append(error.code)
        log.append((await websocket._receive())["type"])

    async with SocketExchange(served(endpoint), "one", "two") as exchange:
        await anyio.sleep(1)
        exchange.leave(1001)

    assert log == ["one", "two", 1001, "websocket.disconnect"]


async def test_work_that_is_not_begun_is_not_begun_for_a_client_that_left(log):
    @cancellable
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            log.append(await websocket.receive_text())
            await anyio.sleep(1)

    async with SocketExchange(served(endpoint)) as exchange:
        await anyio.sleep(1)
        exchange.say("one")
        exchange.leave()

    assert log == []


async def test_the_engine_behind_a_websocket_is_idle_when_its_client_has_left(log):
    engine = FakeEngine(slots=1, step_ms=10)

    @cancellable(engine, on_cancel=lambda c: log.append(c.reason))
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async for prompt in websocket.iter_text():
            async for chunk in engine.generate(prompt, max_tokens=1_000):
                await websocket.send_text(chunk.text)

    async with SocketExchange(served(endpoint), "a b c") as exchange:
        await exchange.wait_sent(3)
        exchange.leave()

    await anyio.sleep(1)
    statistics = engine.statistics()
    assert log == [Reason.CLIENT_DISCONNECT]
    assert (statistics.running, statistics.queued) == (0, 0)
    assert statistics.tokens < 10
    assert held() == []


async def test_an_endpoint_of_fastapi_is_cancelled_too(log):
    app = FastAPI()
    app.add_middleware(CancellationMiddleware)

    @app.websocket("/")
    @cancellable(on_cancel=lambda c: log.append(c.reason))
    async def endpoint(websocket: WebSocket) -> None:
        await sleep_long(websocket)

    async with SocketExchange(app) as exchange:
        await anyio.sleep(1)
        exchange.leave()

    assert log == [Reason.CLIENT_DISCONNECT]
    assert exchange.outcome == "returned"


async def test_without_the_middleware_a_websocket_cannot_be_watched_and_the_error_says_so():
    async def app(scope, receive, send) -> None:
        async with watch_disconnect(WebSocket(scope, receive, send)):
            pass

    with pytest.raises(UsageBug, match="CancellationMiddleware"):
        await SocketExchange(app).run()


async def test_there_is_one_reader_whoever_asks():
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(websocket.receive)

    async with SocketExchange(served(endpoint)) as exchange:
        await anyio.sleep(1)
        exchange.leave()

    assert exchange.concurrent_receives == 1
    assert exchange.outcome == "returned"


# -- back-pressure ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "read"), [(1, 1_025), (300_000, 5), (2_000_000, 2)], ids=["many", "long", "huge"]
)
async def test_messages_are_read_ahead_to_a_bound(size, read, log):
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await anyio.sleep(1)
        log.append(exchange.received)
        for _ in range(1_200):
            await websocket.receive_text()

    exchange = SocketExchange(served(endpoint), *["x" * size] * 1_200)
    await exchange.run()

    assert log == [read]  # with the handshake's own
    assert exchange.received == 1_201


# -- send ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True], ids=["uvicorn", "hypercorn"])
@pytest.mark.parametrize("wrap", [cancellable, lambda endpoint: endpoint], ids=["ours", "plain"])
async def test_a_send_that_is_blocked_is_released_when_the_client_leaves(wrap, silent, log):
    @wrap
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("x")
        except WebSocketDisconnect as error:
            log.append((error.code, anyio.current_time()))

    async with SocketExchange(served(endpoint), silent=silent) as exchange:
        exchange.stop_reading()
        await exchange.wait_blocked()
        await anyio.sleep(3)
        exchange.vanish()

    assert log == [(1006, 3)]


async def test_a_client_that_stays_and_reads_nothing_is_given_up_after_the_limit(log):
    async def endpoint(websocket: WebSocket) -> None:
        request_token(websocket).add_listener(lambda c: log.append((c.reason, c.at)))
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("x")
        log.append((await websocket.receive())["code"])

    exchange = SocketExchange(served(endpoint, write_stall=10))
    async with exchange:
        exchange.stop_reading()

    [(reason, at), code] = log
    assert (reason, code) == (Reason.WRITE_STALLED, 1006)
    assert 10 <= at <= 10.5 + 0.01


async def test_after_the_client_left_a_send_says_so_and_a_close_does_not(log):
    async def app(scope, receive, send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await anyio.sleep(2)
        for kind in ("websocket.close", "websocket.send"):
            try:
                await send({"type": kind, "text": "x"})
                log.append("quiet")
            except OSError as error:
                log.append("client_disconnect" in str(error))
                raise

    async with SocketExchange(CancellationMiddleware(app), silent=True) as exchange:
        await anyio.sleep(1)
        exchange.leave()

    assert log == ["quiet", True]
    assert exchange.outcome == "returned"  # that error is nobody's mistake


async def test_a_handler_that_never_waits_hears_of_the_client_that_left():
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        for number in range(100_000):
            if number == 10:
                exchange.leave()
            await websocket.send_text("x")

    exchange = SocketExchange(served(endpoint), silent=True)
    await exchange.run()

    assert exchange.outcome == "returned"
    assert exchange.attempts <= 10 + 16 + 2


async def test_a_send_that_fails_is_how_some_servers_tell(log):
    async def app(scope, receive, send) -> None:
        token = scope["streamkit"].token
        token.add_listener(lambda c: log.append((c.reason, c.detail)))
        await receive()
        await send({"type": "websocket.send", "text": "x"})

    async def receive():
        if log:
            await anyio.sleep_forever()
        log.append("connect")
        return {"type": "websocket.connect"}

    async def send(message) -> None:
        raise OSError("broken pipe")

    scope = {"type": "websocket", "path": "/"}
    await CancellationMiddleware(app)(scope, receive, send)

    assert log == ["connect", (Reason.CLIENT_DISCONNECT, "sending failed: OSError('broken pipe')")]


# -- ends that are not the client's doing ----------------------------------------------------------


async def test_an_app_that_closes_has_finished(log):
    async def endpoint(websocket: WebSocket) -> None:
        token = request_token(websocket)
        await websocket.accept()
        await websocket.close(1000, "done")
        log.append((await websocket.receive())["type"])
        await anyio.sleep(1)
        log.append((token.cancelled, token.finished))

    exchange = await SocketExchange(served(endpoint)).run()

    assert log == ["websocket.disconnect", (False, True)]
    assert exchange.closed == (1000, "done")


async def test_a_handshake_that_the_app_refuses_has_finished(log):
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.close()
        await anyio.sleep(1)
        log.append(request_token(websocket).cancelled)

    exchange = await SocketExchange(served(endpoint)).run()

    assert log == [False]
    assert [one["type"] for one in exchange.sent] == ["websocket.close"]


async def test_an_http_response_to_a_handshake_passes():
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.receive()
        await websocket.send_denial_response(PlainTextResponse("not you", 401))

    exchange = await SocketExchange(served(endpoint)).run()

    start, body = exchange.sent
    assert (start["status"], body["body"]) == (401, b"not you")


async def test_a_server_that_goes_down_is_not_a_client_that_left(log):
    async def endpoint(websocket: WebSocket) -> None:
        request_token(websocket).add_listener(lambda c: log.append(c.reason))
        await echo(websocket)

    async with SocketExchange(served(endpoint)) as exchange:
        await anyio.sleep(1)
        exchange.go_down()

    assert log == [Reason.DRAIN]


async def test_a_client_may_say_service_restart_and_has_left(log):
    async def endpoint(websocket: WebSocket) -> None:
        request_token(websocket).add_listener(lambda c: log.append(c.reason))
        await echo(websocket)

    async with SocketExchange(served(endpoint)) as exchange:
        await anyio.sleep(1)
        exchange.leave(1012)

    assert log == [Reason.CLIENT_DISCONNECT]


async def test_a_send_that_fails_because_the_server_goes_down_is_a_drain(log):
    async def endpoint(websocket: WebSocket) -> None:
        request_token(websocket).add_listener(lambda c: log.append(c.reason))
        await websocket.accept()
        await anyio.sleep(1)
        exchange.go_down()  # in the same turn: the server's word has not been read
        await websocket.send_text("x")

    exchange = SocketExchange(served(endpoint))
    await exchange.run()

    assert log == [Reason.DRAIN]
    assert exchange.outcome == "returned"


async def test_a_server_that_cancels_the_task_is_going_down(log):
    async def endpoint(websocket: WebSocket) -> None:
        request_token(websocket).add_listener(lambda c: log.append(c.reason))
        await sleep_long(websocket)

    async with SocketExchange(served(endpoint)) as exchange:
        await anyio.sleep(1)
        exchange.cancel()
        await exchange.wait_ended()

    assert log == [Reason.DRAIN]
    assert exchange.outcome == "cancelled"


# -- cancelled while the client is there -----------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.REQUESTED, 1008),
        (Reason.DEADLINE, 1008),
        (Reason.DRAIN, 1012),
        (Reason.SHED, 1013),
        (Reason.SUPERSEDED, 1008),
        (Reason.ENGINE_FAILED, 1011),
        (Reason.ERROR, 1011),
    ],
)
@pytest.mark.parametrize("work", [echo, sleep_long], ids=["parked", "elsewhere"])
async def test_the_client_is_told_why_its_websocket_is_closed(work, reason, code):
    @cancellable
    async def endpoint(websocket: WebSocket) -> None:
        await work(websocket)

    app = served(endpoint)
    async with SocketExchange(app) as exchange:
        await anyio.sleep(1)
        assert app.cancel_all(reason) == 1

    assert exchange.closed == (code, reason)
    assert exchange.outcome == "returned"


async def test_a_plain_endpoint_is_woken_by_a_drain_and_begins_nothing_new(log):
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await anyio.sleep(2)
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as error:
            log.append((error.code, error.reason))
            raise

    app = served(endpoint)
    async with SocketExchange(app, "more work") as exchange:
        await anyio.sleep(1)
        app.cancel_all(Reason.DRAIN)
        exchange.say("and more")

    assert log == [(1012, "drain")]
    assert exchange.closed == (1012, "drain")


async def test_an_app_hears_of_its_client_before_it_hears_of_a_cancel(log):
    async def app(scope, receive, send) -> None:
        log.append((await receive())["type"])
        log.append((await receive())["type"])

    async def receive():
        await anyio.sleep(1)
        return {"type": "websocket.connect"}

    async def send(message) -> None:
        log.append(message["type"])

    middleware = CancellationMiddleware(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(middleware, {"type": "websocket", "path": "/"}, receive, send)
        await anyio.sleep(0.5)
        middleware.cancel_all(Reason.DRAIN)

    assert log == ["websocket.connect", "websocket.disconnect", "websocket.close"]


async def test_who_goes_on_asking_lets_others_run(log):
    async def app(scope, receive, send) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(anyio.lowlevel.checkpoint)
                log.append((await receive())["type"])
            log.append(len(asyncio.all_tasks()) < 10)

    exchange = SocketExchange(CancellationMiddleware(app))
    exchange.leave()
    await exchange.run()

    assert log == ["websocket.connect", *["websocket.disconnect"] * 9, True]


async def test_a_client_that_leaves_after_a_cancel_is_heard_behind_all_that_was_read_ahead(log):
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await anyio.sleep(2)
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("to nobody")
        log.append(request_token(websocket).history[0].reason)

    app = served(endpoint)
    async with SocketExchange(app, *["x"] * 2_000, silent=True) as exchange:
        await anyio.sleep(1)
        app.cancel_all(Reason.DEADLINE)
        exchange.leave()

    assert log == [Reason.CLIENT_DISCONNECT]


@pytest.mark.parametrize("denies", [True, False])
async def test_a_handshake_that_is_cancelled_is_refused_with_the_reason(denies):
    @cancellable
    async def endpoint(websocket: WebSocket) -> None:
        await anyio.sleep(60)

    app = served(endpoint)
    async with SocketExchange(app, denies=denies) as exchange:
        await anyio.sleep(1)
        app.cancel_all(Reason.DRAIN)

    first = exchange.sent[0]
    if denies:
        assert (first["type"], first["status"]) == ("websocket.http.response.start", 503)
    else:
        assert first["type"] == "websocket.close"


async def test_a_client_that_does_not_read_is_not_waited_for_to_hear_why():
    app = served(cancellable(echo))
    async with SocketExchange(app, "x") as exchange:
        await exchange.wait_sent(1)
        exchange.stop_reading()
        app.cancel_all(Reason.DEADLINE)

    assert exchange.ended_at == 5
    assert exchange.closed is None


async def test_a_send_that_stays_blocked_after_a_cancel_is_bounded_all_the_same(log):
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        app.cancel_all(Reason.DEADLINE)
        exchange.stop_reading()
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("a last word")
        log.append(request_token(websocket).cancellation.reason)

    app = served(endpoint, write_stall=10)
    exchange = SocketExchange(app)
    await exchange.run()

    assert log == [Reason.DEADLINE]
    assert 10 <= exchange.ended_at <= 10.5 + 0.01


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError("mine"), WebSocketDisconnect(4000)])
async def test_an_error_of_the_app_is_the_apps(error):
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        raise error

    with pytest.raises(type(error)):
        await SocketExchange(served(endpoint)).run()


async def test_an_error_of_the_app_after_its_client_left_is_not_lost():
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        exchange.leave()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect:
            raise KeyError("mine") from None

    exchange = SocketExchange(served(endpoint))
    with pytest.raises(KeyError, match="mine"):
        await exchange.run()


async def test_a_disconnect_that_nobody_caught_is_no_error():
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(websocket.receive_text)
            tasks.start_soon(anyio.sleep, 60)

    async with SocketExchange(served(endpoint)) as exchange:
        await anyio.sleep(1)
        exchange.leave()

    assert exchange.outcome == "returned"


async def test_a_client_that_left_during_the_handshake_is_refused_for_the_servers_sake():
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.receive()
        await websocket.receive()

    async with SocketExchange(served(endpoint), silent=True) as exchange:
        await anyio.sleep(1)
        exchange.leave(1006)

    assert exchange.outcome == "returned"
    assert exchange.attempts == 1


# -- what the server does not say ------------------------------------------------------------------


class Transport:
    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.closing = self.aborted = False

    def get_extra_info(self, name: str) -> object:
        return {"socket": self._end}.get(name)

    def is_closing(self) -> bool:
        return self.closing

    def is_reading(self) -> bool:
        return False

    def abort(self) -> None:
        self.aborted = True


class BlindExchange(SocketExchange):
    """On a server whose receive() leads to its transport, as uvicorn's."""

    transport: Transport


@pytest.fixture
def blind(log):
    async def endpoint(websocket: WebSocket) -> None:
        request_token(websocket).add_listener(lambda c: log.append((c.reason, c.at)))
        await sleep_long(websocket)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        exchange = BlindExchange(served(cancellable(endpoint)), *["x"] * 2_000)
        exchange.transport = Transport(ours)
        yield exchange, theirs


async def test_a_client_that_left_behind_more_than_is_read_ahead_is_found(blind, log):
    exchange, theirs = blind
    async with exchange:
        await anyio.sleep(1.2)
        theirs.close()

    assert log == [(Reason.CLIENT_DISCONNECT, 1.5)]


async def test_why_a_server_closed_is_heard_behind_all_that_was_read_ahead(blind, log):
    exchange, _ = blind
    async with exchange:
        await anyio.sleep(1.2)
        exchange.go_down()
        exchange.transport.closing = True

    assert log == [(Reason.DRAIN, 1.5)]


async def test_a_connection_that_closed_without_a_word_is_found(blind, log):
    exchange, _ = blind
    async with exchange:
        await anyio.sleep(1.2)
        exchange.transport.closing = True

    assert log == [(Reason.CLIENT_DISCONNECT, 2)]  # the look after the one that asked the server


# -- in every turn of the loop ---------------------------------------------------------------------


class Scene:
    """A handler over an engine of one slot, and what was seen of each websocket."""

    def __init__(self, kind: str) -> None:
        self.engine = FakeEngine(slots=1, step_ms=10)
        self.entered = self.closed = 0
        self.aborts: list[Reason] = []
        work = self.parked if kind == "parked" else self.work
        if kind != "plain":
            work = cancellable(self.engine, on_cancel=lambda c: self.aborts.append(c.reason))(work)
        self.app = served(work)
        self.exchange: SocketExchange | None = None

    async def work(self, websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(2):
            prompt = await websocket.receive_text()
            self.entered += 1
            try:
                async for chunk in self.engine.generate(prompt, max_tokens=2):
                    await websocket.send_text(chunk.text)
            finally:
                self.closed += 1
        await websocket.close()

    async def parked(self, websocket: WebSocket) -> None:
        try:
            await self.work(websocket)
        except WebSocketDisconnect:
            await anyio.sleep(0.001)

    async def run(self) -> None:
        self.aborts.clear()
        self.exchange = SocketExchange(self.app, "a b", "c d")
        await self.exchange.run()

    async def check(self) -> None:
        await wait_held(5)
        await anyio.lowlevel.checkpoint()

        assert self.exchange is not None
        assert held() == []
        assert not self.app.live
        assert self.closed == self.entered
        assert len(self.aborts) <= 1
        assert self.exchange.concurrent_receives == 1
        statistics = self.engine.statistics()
        assert (statistics.running, statistics.queued, statistics.quarantined) == (0, 0, 0)
        assert len([c async for c in self.engine.generate("a", max_tokens=1)]) == 1


KINDS = ["work", "parked", "plain"]


@pytest.mark.parametrize("act", ["leave", "vanish", "go_down"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_websocket_that_ends_in_any_turn_of_the_loop_leaves_clean_books(kind, act):
    scene = Scene(kind)

    report = await every_moment(
        scene.run, lambda: scene.exchange and getattr(scene.exchange, act)(), check=scene.check
    )

    assert report.runs > 10


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_stops_reading_and_leaves_in_any_turn_leaves_clean_books(kind):
    scene = Scene(kind)

    def act() -> None:
        if scene.exchange is not None:
            scene.exchange.stop_reading()
            scene.exchange.leave()

    await every_moment(scene.run, act, check=scene.check)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_cancels_the_task_in_any_turn_leaves_clean_books(kind):
    scene = Scene(kind)

    await every_moment(
        scene.run, lambda: scene.exchange and scene.exchange.cancel(), check=scene.check
    )


@pytest.mark.parametrize("reason", [Reason.DRAIN, Reason.REQUESTED])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancel_for_any_reason_in_any_turn_leaves_clean_books(kind, reason):
    scene = Scene(kind)

    async def check() -> None:
        await scene.check()
        assert scene.exchange is not None
        first = scene.exchange.sent[0]["type"]
        assert scene.exchange.closed or first == "websocket.http.response.start"

    await every_moment(scene.run, lambda: scene.app.cancel_all(reason), check=check)
