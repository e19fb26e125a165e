"""`/v1/websocket`: a model's websocket as on Truss, and one whose work stops with its client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import HTTPException, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed

from streamkit import cancellable
from streamkit._core import Phase, Reason, held, wait_held
from streamkit.engines import FakeEngine
from streamkit.testing import every_moment
from tests.asgi.socket_exchange import SocketExchange
from tests.server.serving import Served, serving

PATH = "/v1/websocket"


def connect(app: Any, *says: str, **options: Any) -> SocketExchange:
    return SocketExchange(app, *says, path=PATH, **options)


class Echo:
    async def websocket(self, websocket: WebSocket) -> None:
        async for text in websocket.iter_text():
            if text == "done":
                return
            await websocket.send_text(f"{text} pong")


class Engine:
    """A model over an engine of one slot."""

    def __init__(self) -> None:
        self.engine = FakeEngine(slots=1, step_ms=10)
        self.closed = 0

    async def websocket(self, websocket: WebSocket) -> None:
        try:
            async for prompt in websocket.iter_text():
                async for chunk in self.engine.generate(prompt, max_tokens=1_000):
                    await websocket.send_text(chunk.text)
        finally:
            self.closed += 1


async def ended(app: Any) -> Any:
    """The books of the one request there was, once they are closed."""
    await wait_held(5)
    [account] = app.runner.in_flight.ended(10)
    return account


# -- as on Truss -----------------------------------------------------------------------------------


async def test_it_is_accepted_run_and_closed(serve):
    app = serve(Echo)

    exchange = await connect(app, "hello", "world", "done").run()

    assert exchange.texts == ["hello pong", "world pong"]
    assert exchange.closed == (1000, "")
    assert (await ended(app)).phase is Phase.FINISHED


@pytest.mark.parametrize("error", [ValueError("secret"), HTTPException(418, "secret")])
async def test_an_error_of_the_model_closes_with_the_fixed_words(serve, error, caplog):
    class Model:
        async def websocket(self, websocket):
            raise error

    app = serve(Model)
    exchange = await connect(app).run()

    assert exchange.closed == (1011, "Internal Server Error (in model/chainlet).")
    assert (await ended(app)).phase is Phase.FAILED
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [ValueError, partial(HTTPException, 418)])
async def test_a_traceback_is_the_models_own(serve, caplog, error):
    class Model:
        async def websocket(self, websocket: WebSocket) -> None:
            raise error("mine")

    await connect(serve(Model)).run()

    [record] = caplog.records
    assert record.exc_info is not None
    frames = record.exc_info[2]
    assert frames is not None
    assert frames.tb_frame.f_code.co_name == "websocket"


async def test_a_model_without_the_method_says_so_by_closing(serve, caplog):
    class Model:
        def predict(self, inputs):
            return inputs

    app = serve(Model)
    exchange = await connect(app).run()

    assert exchange.sent[0]["type"] == "websocket.accept"
    assert exchange.closed == (1003, "WebSocket is not implemented on this deployment.")
    assert "not implemented" in caplog.text
    assert app.runner.statistics().refused == {"invalid": 1}


@pytest.mark.parametrize("denies", [True, False])
async def test_a_model_that_is_not_loaded_refuses_the_handshake(serve, denies):
    app = serve(Echo, loaded=False)
    exchange = await connect(app, denies=denies).run()

    start = exchange.sent[0]
    if not denies:
        assert start["type"] == "websocket.close"
        return
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    headers = dict(start["headers"])
    assert headers[b"x-baseten-error-source"] == b"04"
    assert headers[b"x-baseten-error-code"] == b"600"
    said = json.loads(exchange.sent[1]["body"])
    assert said == {"error": "Model with name model is not ready."}


async def test_a_model_may_close_by_itself(serve):
    class Model:
        async def websocket(self, websocket):
            await websocket.close(4000, "my own")

    app = serve(Model)
    exchange = await connect(app).run()

    assert exchange.closed == (4000, "my own")
    assert (await ended(app)).phase is Phase.FINISHED


async def test_a_model_may_end_with_a_disconnect_of_its_own(serve):
    class Model:
        async def websocket(self, websocket):
            raise WebSocketDisconnect(4000)

    app = serve(Model)
    exchange = await connect(app).run()

    assert exchange.closed == (1000, "")
    assert (await ended(app)).phase is Phase.FINISHED


async def test_too_many_are_refused_with_the_status_of_any_request(serve):
    class Model:
        async def websocket(self, websocket):
            await anyio.sleep(60)

    app = serve(Model, predict_concurrency=1, max_queued=0)
    async with connect(app) as first:
        await anyio.sleep(1)
        second = await connect(app).run()
        first.leave()

    assert second.sent[0]["status"] == 429
    assert b"retry-after" in dict(second.sent[0]["headers"])


async def test_a_path_that_is_no_websocket_is_refused(serve):
    exchange = await SocketExchange(serve(Echo), path="/v1/models").run()

    assert [one["type"] for one in exchange.sent] == ["websocket.close"]


# -- what Truss does not ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["leave", "vanish"])
async def test_the_engine_is_idle_when_the_client_has_left(serve, way):
    model = Engine()
    app = serve(model)
    async with connect(app, "a b c") as exchange:
        await exchange.wait_sent(3)
        getattr(exchange, way)()

    account = await ended(app)
    assert (account.phase, account.reason) == (Phase.CANCELLED, Reason.CLIENT_DISCONNECT)
    statistics = model.engine.statistics()
    assert (statistics.running, statistics.queued) == (0, 0)
    assert statistics.tokens < 10
    assert model.closed == 1
    assert exchange.outcome == "returned"


async def test_a_model_that_hears_of_it_in_receive_may_clean_up(serve, caplog):
    log: list[object] = []

    class Model:
        async def websocket(self, websocket):
            try:
                await websocket.receive_text()
            except WebSocketDisconnect as error:
                await anyio.sleep(1)
                log.append((error.code, anyio.current_time()))
                raise

    app = serve(Model)
    async with connect(app) as exchange:
        await anyio.sleep(2)
        exchange.leave(1001)

    account = await ended(app)
    assert log == [(1001, 3)]
    assert (account.phase, account.reason) == (Phase.CANCELLED, Reason.CLIENT_DISCONNECT)
    assert "1001" in account.detail
    assert not caplog.records  # no traceback: nobody made a mistake


async def test_readers_and_writers_side_by_side_end_without_a_traceback(serve, caplog):
    class Model:
        async def websocket(self, websocket):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(websocket.receive_text)
                tasks.start_soon(anyio.sleep, 60)

    app = serve(Model)
    async with connect(app) as exchange:
        await anyio.sleep(1)
        exchange.leave()

    assert (await ended(app)).reason is Reason.CLIENT_DISCONNECT
    assert not caplog.records


async def test_a_model_that_goes_on_after_it_was_told_made_no_mistake_worth_a_traceback(
    serve, caplog
):
    class Model:
        async def websocket(self, websocket):
            for _ in range(3):
                with contextlib.suppress(WebSocketDisconnect):
                    await websocket.receive_text()

    app = serve(Model)
    async with connect(app) as exchange:
        await anyio.sleep(1)
        exchange.leave()

    assert (await ended(app)).reason is Reason.CLIENT_DISCONNECT
    assert not caplog.records


async def test_an_error_after_the_client_left_is_said_and_is_no_failure_of_the_request(
    serve, caplog
):
    class Model:
        async def websocket(self, websocket):
            try:
                await websocket.receive_text()
            finally:
                raise KeyError("mine")

    app = serve(Model)
    async with connect(app) as exchange:
        await anyio.sleep(1)
        exchange.leave()

    assert (await ended(app)).reason is Reason.CLIENT_DISCONNECT
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_blocked_send_is_released_and_the_next_client_served(serve):
    class Model:
        async def websocket(self, websocket):
            await websocket.receive_text()
            while True:
                await websocket.send_text("x")

    app = serve(Model, predict_concurrency=1, max_queued=0)
    for way in ("leave", "vanish"):
        async with connect(app, "go", silent=True) as exchange:
            exchange.stop_reading()
            await exchange.wait_blocked()
            getattr(exchange, way)()

    await wait_held(5)
    assert {account.reason for account in app.runner.in_flight.ended(10)} == {
        Reason.CLIENT_DISCONNECT
    }


async def test_what_is_cancellable_inside_hangs_on_the_websocket(serve):
    log: list[object] = []

    class Model:
        def __init__(self) -> None:
            self.engine = FakeEngine(slots=1, step_ms=10)

        async def websocket(self, websocket: WebSocket) -> None:
            stream = cancellable(self.engine, on_cancel=lambda c: log.append(c.root.reason))
            async for chunk in stream(self.engine.generate)("a b", max_tokens=1_000):
                await websocket.send_text(chunk.text)

    app = serve(Model)
    async with connect(app) as exchange:
        await exchange.wait_sent(2)
        exchange.leave()

    await ended(app)
    assert log == [Reason.CLIENT_DISCONNECT]


async def test_what_takes_the_websocket_hangs_on_its_request(serve):
    log: list[object] = []

    @cancellable(on_cancel=lambda c: log.append(c.reason))
    async def talk(websocket: WebSocket) -> None:
        await websocket.receive_text()
        await anyio.sleep(60)

    class Model:
        async def websocket(self, websocket):
            await talk(websocket)

    exchange = await connect(serve(Model, request_timeout=5), "hello").run()

    assert log == [Reason.DEADLINE]
    assert exchange.closed == (1008, "deadline")


async def test_a_model_that_calls_its_cancel_a_disconnect_was_cancelled_all_the_same(serve):
    class Model:
        async def websocket(self, websocket):
            try:
                await anyio.sleep(60)
            except anyio.get_cancelled_exc_class():
                raise WebSocketDisconnect from None

    app = serve(Model, request_timeout=5)
    exchange = await connect(app).run()

    assert exchange.closed == (1008, "deadline")
    assert (await ended(app)).reason is Reason.DEADLINE


async def test_a_client_may_name_its_websocket_and_cancel_it_by_that_name(serve):
    app = serve(Engine)
    async with connect(app, "a b", headers={"x-request-id": "mine"}) as exchange:
        await exchange.wait_sent(2)
        assert dict(exchange.sent[0]["headers"])[b"x-request-id"] == b"mine"
        app.runner.cancel("mine")

    assert exchange.closed == (1008, "requested")
    assert (await ended(app)).reason is Reason.REQUESTED


async def test_a_deadline_closes_it(serve):
    app = serve(Echo, request_timeout=5)

    exchange = await connect(app).run()

    assert exchange.closed == (1008, "deadline")
    assert exchange.ended_at == 5


async def test_a_drain_closes_it_after_the_grace(serve):
    app = serve(Echo)
    async with connect(app) as exchange:
        await anyio.sleep(1)
        await app.runner.drain(3)

    assert exchange.closed == (1012, "drain")
    assert exchange.ended_at == 4


async def test_a_server_that_goes_down_is_no_client_that_left(serve):
    app = serve(Echo)
    async with connect(app) as exchange:
        await anyio.sleep(1)
        exchange.go_down()

    assert (await ended(app)).reason is Reason.DRAIN


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt])
async def test_what_would_end_its_task_or_the_process_is_an_error_of_the_models(serve, error):
    class Model:
        async def websocket(self, websocket):
            raise error()

    app = serve(Model)
    exchange = await connect(app).run()

    assert exchange.closed == (1011, "Internal Server Error (in model/chainlet).")
    assert (await ended(app)).phase is Phase.FAILED


class Published:
    """As orpheus-3b-websockets: never gone, says its patch, and nobody ends its engine's reader."""

    def __init__(self) -> None:
        self.engine_ended: list[float] = []

    async def websocket(self, ws: WebSocket) -> None:
        async def never() -> bool:
            return False

        ws.is_disconnected = never
        prompt = await ws.receive_json()
        try:
            await self.flush(ws, prompt)
        except WebSocketDisconnect:
            await self.flush(ws, "the rest")

    async def flush(self, ws: Any, prompt: str) -> None:
        tokens: asyncio.Queue[str] = asyncio.Queue()

        async def produce() -> None:
            async for token in self.generate(ws):
                tokens.put_nowait(token)

        self.task = asyncio.create_task(produce())  # noqa: TID251 - users do
        while True:
            await ws.send_text(f"{prompt} {await tokens.get()}")

    async def generate(self, request: Any) -> AsyncIterator[str]:
        try:
            while not await request.is_disconnected():
                await anyio.sleep(0.01)
                yield "token"
        finally:
            self.engine_ended.append(anyio.current_time())


async def test_a_published_model_that_says_never_stops_all_the_same(serve, caplog):
    model = Published()
    app = serve(model)
    async with connect(app, '"hi"') as exchange:
        await exchange.wait_sent(2)
        exchange.leave()
        left_at = anyio.current_time()

    account = await ended(app)
    assert account.reason is Reason.CLIENT_DISCONNECT
    assert model.engine_ended
    assert max(model.engine_ended) <= left_at + 0.02
    assert exchange.texts[:2] == ["hi token", "hi token"]
    assert not caplog.records


async def test_a_model_may_ask_without_a_patch(serve):
    log: list[object] = []

    class Model:
        async def websocket(self, websocket):
            while not await websocket.is_disconnected():  # noqa: ASYNC110 - users do
                await anyio.sleep(0.1)
            log.append("asked")

    app = serve(Model)
    async with connect(app) as exchange:
        await anyio.sleep(1)
        exchange.leave()

    assert log == ["asked"]
    assert (await ended(app)).reason is Reason.CLIENT_DISCONNECT


# -- in every turn of the loop ---------------------------------------------------------------------


class Talk:
    """Two prompts, two tokens each, over an engine of one slot."""

    def __init__(self) -> None:
        self.engine = FakeEngine(slots=1, step_ms=10)

    async def websocket(self, websocket: WebSocket) -> None:
        for _ in range(2):
            prompt = await websocket.receive_text()
            async for chunk in self.engine.generate(prompt, max_tokens=2):
                await websocket.send_text(chunk.text)


ACTS = ["leave", "vanish", "go_down", "cancel", "stop_reading_and_leave"]


@pytest.mark.parametrize("act", ACTS)
async def test_whatever_happens_in_any_turn_leaves_clean_books(serve, act):
    model = Talk()
    app = serve(model)
    exchange: SocketExchange | None = None

    async def run() -> None:
        nonlocal exchange
        exchange = connect(app, "a b", "c d")
        await exchange.run()

    def happen() -> None:
        if exchange is not None:
            for name in act.split("_and_"):
                getattr(exchange, name)()

    async def check() -> None:
        await wait_held(5)
        await anyio.lowlevel.checkpoint()
        assert held() == []
        assert len(app.runner.in_flight) == 0
        totals = app.runner.statistics()
        assert totals.started == totals.finished + totals.cancelled + totals.failed
        statistics = model.engine.statistics()
        assert (statistics.running, statistics.queued) == (0, 0)

    report = await every_moment(run, happen, check=check)

    assert report.runs > 10


# -- `streamkit serve` -----------------------------------------------------------------------------

MODEL = """
import asyncio
from fastapi import WebSocket
from streamkit.engines import FakeEngine

class Model:
    def load(self):
        self.closed = 0

    async def websocket(self, websocket: WebSocket):
        engine = FakeEngine(slots=1, step_ms=5)
        try:
            async for prompt in websocket.iter_text():
                if prompt == "closed?":
                    await websocket.send_json(self.closed)
                    continue
                async for chunk in engine.generate(prompt, max_tokens=100_000):
                    await websocket.send_text(chunk.text)
        finally:
            await asyncio.sleep(0.01)  # cleanup may await
            self.closed += 1
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("websocket") / "talk.py"
    file.write_text(MODEL)
    flags = ("--read-timeout", "0.3", "--drain-grace", "0.2")
    with serving(str(file), *flags) as process:
        yield process


def open_websocket(served: Served) -> connect_websocket:
    return connect_websocket(served.url.replace("http", "ws") + PATH, close_timeout=1)


async def requests_of(served: Served) -> list[dict[str, Any]]:
    return (await anyio.to_thread.run_sync(served.get, "/v1/requests"))["requests"]


@pytest.mark.realtime
async def test_a_websocket_outlives_the_time_that_its_handshake_had(served):
    async with open_websocket(served) as client:
        await anyio.sleep(0.5)
        await client.send("closed?")
        assert int(await client.recv()) >= 0


@pytest.mark.realtime
@pytest.mark.parametrize("way", ["close", "abort"])
async def test_a_client_of_a_real_server_leaves_and_the_next_is_served(served, way):
    client = await open_websocket(served)
    await client.send("tell me")
    for _ in range(3):
        await client.recv()
    if way == "close":
        await client.close()
    else:
        client.transport.abort()

    with anyio.fail_after(5):
        while (last := (await requests_of(served))[0])["phase"] != "cancelled":  # noqa: ASYNC110
            await anyio.sleep(0.02)
    assert (last["reason"], last["proof"]) == ("client_disconnect", "joined")
    async with open_websocket(served) as another:
        await another.send("closed?")
        assert int(await another.recv()) >= 1


@pytest.mark.realtime
async def test_a_server_that_is_told_to_stop_closes_its_websockets_with_the_reason(served):
    client = await open_websocket(served)
    await client.send("tell me")
    await client.recv()
    served.signal()
    with pytest.raises(ConnectionClosed) as closed:
        await read_on(client)

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "drain")
    status, log = await anyio.to_thread.run_sync(served.wait)
    assert status == 0
    assert "Traceback" not in log


async def read_on(client: ClientConnection) -> None:
    while True:
        await client.recv()
