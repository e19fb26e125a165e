"""Websockets on real servers: whichever way a client leaves, the work for it stops."""

from __future__ import annotations

import contextlib
import socket
import struct
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import anyio
import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from granian.server.embed import Server as Granian
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamkit._core import Reason, now, wait_held
from streamkit.asgi import CancellationMiddleware
from streamkit.engines import FakeEngine
from streamkit.streams import cancellable

pytestmark = [
    pytest.mark.realtime,
    # What uvicorn's oldest implementation is built on.
    pytest.mark.filterwarnings("ignore:remove second argument of ws_handler:DeprecationWarning"),
]

SERVERS: Final = ["websockets-sansio", "wsproto", "websockets", "hypercorn", "granian"]
FEW: Final = ["websockets-sansio", "hypercorn"]
WRITE_STALL: Final = 1.0  # seconds; more than two looks of the sweeper are apart
LIMIT: Final = 5.0  # seconds; each of these ends in a fraction of it


class Scene:
    """Handlers over an engine of one slot, and what was seen of them."""

    def __init__(self, write_stall: float = WRITE_STALL) -> None:
        self.engine = FakeEngine(slots=1, step_ms=5, prefill_tokens_per_step=1)
        self.reasons: list[Reason] = []
        self.details: list[str] = []
        self.begun = anyio.Event()
        self.closed = anyio.Event()
        wrap = cancellable(self.engine, on_cancel=self.told)
        self._handlers: dict[str, Any] = {
            "/awaits": wrap(self.awaits),
            "/parked": wrap(self.parked),
            "/blocked": wrap(self.blocked),
            "/deaf": wrap(self.deaf),
            "/waits": wrap(self.handshake),
            "/plain": self.parked,
        }
        self.app = CancellationMiddleware(self.serve, write_stall=write_stall)

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (kind := (await receive())["type"]) != "lifespan.shutdown":
                await send({"type": f"{kind}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.closed = anyio.Event()
        try:
            await self._handlers[scope["path"]](WebSocket(scope, receive, send))
        finally:
            self.closed.set()

    def told(self, cancellation: Any) -> None:
        self.reasons.append(cancellation.reason)
        self.details.append(cancellation.detail)

    async def awaits(self, websocket: WebSocket) -> None:
        """In prefill, for minutes."""
        await self.begin(websocket)
        async for chunk in self.engine.generate("word " * 100_000):
            await websocket.send_text(chunk.text)

    async def parked(self, websocket: WebSocket) -> None:
        await self.begin(websocket)
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.receive_text()

    async def blocked(self, websocket: WebSocket) -> None:
        await self.begin(websocket)
        async for _ in self.engine.generate("word"):
            while True:
                await websocket.send_text("x" * 10_000)

    async def deaf(self, websocket: WebSocket) -> None:
        await self.begin(websocket)
        await anyio.sleep(60)

    async def handshake(self, websocket: WebSocket) -> None:
        await websocket.receive()
        self.begun.set()
        await anyio.sleep(60)

    async def begin(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("ready")

    async def wait_blocked(self) -> None:
        """A send() has been going on for longer than any that is not blocked."""
        with anyio.fail_after(LIMIT):
            while not any(now() - (one.sending_since or now()) > 0.05 for one in self.app.live):  # noqa: ASYNC110 - nobody is told
                await anyio.sleep(0.01)

    async def check_idle(self) -> None:
        """Everything of the last websocket is over, and the engine's slot is free."""
        with anyio.fail_after(LIMIT):
            await self.closed.wait()
        await wait_held(LIMIT)
        statistics = self.engine.statistics()
        assert (statistics.running, statistics.queued) == (0, 0)
        with anyio.fail_after(LIMIT):
            assert len([c async for c in self.engine.generate("a", max_tokens=1)]) == 1


# -- servers, in this very loop --------------------------------------------------------------------


Stop = Callable[[], object]


@contextlib.asynccontextmanager
async def running(kind: str, app: Any, **options: Any) -> AsyncIterator[tuple[str, Stop]]:
    """Serve ``app``; gives its address, and what makes it go down."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        start = {"hypercorn": on_hypercorn, "granian": on_granian}.get(kind, on_uvicorn)
        async with start(kind, app, sock, options) as stop:
            yield f"ws://127.0.0.1:{port}", stop


@contextlib.asynccontextmanager
async def on_uvicorn(kind: str, app: Any, sock: socket.socket, options: Any) -> AsyncIterator[Stop]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its oldest implementation is deprecated
        config = uvicorn.Config(app, ws=kind, lifespan="on", log_config=None, **options)
        config.load()
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # the tests' own loop keeps its signals

    def stop() -> None:
        server.should_exit = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [sock])
        while not server.started:  # noqa: ASYNC110 - it has no event
            await anyio.sleep(0.01)
        yield stop
        stop()


@contextlib.asynccontextmanager
async def on_hypercorn(_: str, app: Any, sock: socket.socket, options: Any) -> AsyncIterator[Stop]:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.graceful_timeout = 1
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
        yield stop.set
        stop.set()


@contextlib.asynccontextmanager
async def on_granian(_: str, app: Any, sock: socket.socket, options: Any) -> AsyncIterator[Stop]:
    port = sock.getsockname()[1]
    sock.close()
    server = Granian(app, address="127.0.0.1", port=port, interface="asgi", log_enabled=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        while not _listens(port):  # noqa: ASYNC110 - it has no event
            await anyio.sleep(0.01)
        yield server.stop
        server.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# -- clients ---------------------------------------------------------------------------------------


async def come(url: str) -> ClientConnection:
    """Connect, and be served."""
    client = await connect(url, max_queue=1, ping_interval=None, compression=None, close_timeout=1)
    assert await client.recv() == "ready"
    return client


def close(client: ClientConnection) -> None:
    """Say goodbye, and wait for nothing."""
    client.protocol.send_close(1000, "bye")
    client.transport.write(b"".join(client.protocol.data_to_send()))


def reset(client: ClientConnection) -> None:
    end = client.transport.get_extra_info("socket")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


def fin(client: ClientConnection) -> None:
    client.transport.abort()


def half_close(client: ClientConnection) -> None:
    client.transport.write_eof()


async def read_on(client: ClientConnection) -> None:
    while True:
        await client.recv()


WAYS: Final = [close, reset, fin, half_close]


# -- leaving ---------------------------------------------------------------------------------------

PHASES: Final = ["awaits", "parked", "blocked"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", SERVERS)
async def test_whichever_way_a_client_leaves_the_engine_is_idle(kind, phase):
    scene = Scene()
    async with running(kind, scene.app) as (url, _):
        for way in WAYS:
            if (kind, phase, way) == ("websockets", "blocked", close):
                continue  # its implementation breaks at it, and says so with a traceback
            client = await come(f"{url}/{phase}")
            if phase == "blocked":
                client.transport.pause_reading()
                await scene.wait_blocked()
            way(client)
            await scene.check_idle()
            client.transport.abort()
            # hypercorn reads nothing while a write is blocked: the bound of writes ends it.
            stalls = (kind, phase, way) == ("hypercorn", "blocked", close)
            reason = Reason.WRITE_STALLED if stalls else Reason.CLIENT_DISCONNECT
            assert scene.reasons == [reason], way
            scene.reasons.clear()


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_client_that_stays_and_reads_nothing_is_given_up(kind):
    scene = Scene(write_stall=0.2)
    async with running(kind, scene.app) as (url, _):
        client = await come(f"{url}/blocked")
        client.transport.pause_reading()
        await scene.check_idle()
        client.transport.abort()

    assert scene.reasons == [Reason.WRITE_STALLED]


@pytest.mark.parametrize("kind", FEW)
async def test_a_plain_handler_hears_of_it_as_it_always_did(kind):
    scene = Scene()
    async with running(kind, scene.app) as (url, _):
        for way in WAYS:
            client = await come(f"{url}/plain")
            way(client)
            await scene.check_idle()


UVICORN: Final = ["websockets-sansio"]


@pytest.mark.parametrize("way", [reset, fin, half_close])
@pytest.mark.parametrize("kind", UVICORN)
async def test_a_client_that_leaves_behind_more_than_is_read_ahead_is_found(kind, way):
    scene = Scene()
    async with running(kind, scene.app) as (url, _):
        client = await come(f"{url}/deaf")
        for _ in range(1_300):
            await client.send("x" * 100)
        way(client)
        await scene.check_idle()
        client.transport.abort()

    assert scene.reasons == [Reason.CLIENT_DISCONNECT]


@pytest.mark.parametrize("phase", ["awaits", "deaf"])
@pytest.mark.parametrize("kind", UVICORN)
async def test_a_peer_that_answers_no_ping_is_given_up(kind, phase):
    scene = Scene()
    options = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.2}
    async with running(kind, scene.app, **options) as (url, _):
        client = await come(f"{url}/{phase}")
        client.transport.pause_reading()
        await scene.check_idle()
        client.transport.abort()

    assert scene.reasons == [Reason.CLIENT_DISCONNECT]


@pytest.mark.parametrize("kind", UVICORN)
async def test_a_peer_that_answers_pings_is_kept_while_its_messages_wait(kind):
    # By itself, uvicorn reads no pong behind a message that nobody takes.
    scene = Scene()
    options = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.1}
    async with running(kind, scene.app, **options) as (url, _):
        client = await come(f"{url}/deaf")
        await client.send("unread")
        await anyio.sleep(0.5)
        assert scene.reasons == []
        fin(client)
        await scene.check_idle()


@pytest.mark.parametrize("kind", UVICORN)
async def test_a_message_that_is_too_long_ends_it_with_the_code_that_says_so(kind):
    scene = Scene()
    async with running(kind, scene.app, ws_max_size=1_000) as (url, _):
        client = await come(f"{url}/awaits")
        await client.send("x" * 1_001)
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        await scene.check_idle()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    assert scene.reasons == [Reason.CLIENT_DISCONNECT]
    assert "1009" in scene.details[0]


# -- ends that are not the client's doing ----------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", FEW)
async def test_the_client_is_told_of_a_drain(kind, phase):
    scene = Scene()
    async with running(kind, scene.app) as (url, _):
        client = await come(f"{url}/{phase}")
        if phase == "blocked":
            client.transport.pause_reading()
            await scene.wait_blocked()
            client.transport.resume_reading()
        scene.app.cancel_all(Reason.DRAIN)
        with pytest.raises(ConnectionClosed) as closed:
            await read_on(client)
        await scene.check_idle()

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "drain")
    assert scene.reasons == [Reason.DRAIN]


@pytest.mark.parametrize("kind", FEW)
async def test_a_handshake_that_a_drain_meets_is_refused_with_its_status(kind):
    scene = Scene()
    async with running(kind, scene.app) as (url, _), anyio.create_task_group() as tasks:

        async def come_in_vain() -> None:
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{url}/waits")
            assert refused.value.response.status_code == 503

        tasks.start_soon(come_in_vain)
        with anyio.fail_after(LIMIT):
            await scene.begun.wait()
        scene.app.cancel_all(Reason.DRAIN)

    assert scene.reasons == [Reason.DRAIN]


@pytest.mark.parametrize(
    ("kind", "code"),
    [("websockets-sansio", 1012), ("hypercorn", 1011)],
)
async def test_a_server_that_goes_down_is_no_client_that_left(kind, code):
    scene = Scene()
    async with running(kind, scene.app) as (url, stop):
        client = await come(f"{url}/awaits")
        stop()
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        await scene.check_idle()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
    # hypercorn cancels the task, and what is cancellable in it hears that first.
    assert scene.reasons == [Reason.REQUESTED if kind == "hypercorn" else Reason.DRAIN]
