"""The in-memory servers behave like the real ones: the same probe, in memory and over a socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from granian.constants import Interfaces
from granian.server.embed import Server as Granian
from starlette.requests import Request

from streamkit.testing import Exchange, Leave, open_request
from streamkit.testing._connection import ASGIApp, Message, Receive, Send

pytestmark = pytest.mark.realtime

HEAD: Message = {"type": "http.response.start", "status": 200, "headers": []}
CHUNK: Message = {"type": "http.response.body", "body": b"x", "more_body": True}
SETTLE = 0.3  # real seconds; for the client's end to arrive, and for an answer that never comes


async def begin(send: Send) -> None:
    """Send what makes the client leave."""
    await send(HEAD)
    await send(CHUNK)


async def read_body(receive: Receive) -> None:
    """Read all of it; how many messages that takes is up to the server."""
    while (await receive()).get("more_body"):
        pass


async def three_calls(scope: Message, receive: Receive, send: Send) -> object:
    """How many of three calls, one after the other, are told of the disconnect."""
    await read_body(receive)
    await begin(send)
    told = 0
    with anyio.move_on_after(SETTLE):
        for _ in range(3):
            told += (await receive())["type"] == "http.disconnect"
    return told


async def two_parked(scope: Message, receive: Receive, send: Send) -> object:
    """How many of two calls that wait at the same time are told of it."""
    told: list[str] = []

    async def park() -> None:
        told.append((await receive())["type"])

    await read_body(receive)
    with anyio.move_on_after(SETTLE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(park)
            tasks.start_soon(park)
            await anyio.sleep(SETTLE / 10)
            await begin(send)
    return told


async def two_polls(scope: Message, receive: Receive, send: Send) -> object:
    """What two polls say, well after the client has left."""
    request = Request(scope, receive)
    await request.body()
    await begin(send)
    await anyio.sleep(SETTLE)
    return [await request.is_disconnected(), await request.is_disconnected()]


async def late_body(scope: Message, receive: Receive, send: Send) -> object:
    """What the first call gives when the body came, and the client left."""
    await begin(send)
    await anyio.sleep(SETTLE)
    with anyio.move_on_after(SETTLE):
        return (await receive())["type"]
    return "nothing"


async def three_early(scope: Message, receive: Receive, send: Send) -> object:
    """Whether a call that waits for the body hears of a disconnect, while the client is there."""
    told: list[str] = []

    async def ask() -> None:
        told.append((await receive())["type"])

    with anyio.move_on_after(SETTLE):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
    await begin(send)
    return "http.disconnect" in told


Probe = Callable[[Message, Receive, Send], Awaitable[object]]
PROBES: dict[str, Probe] = {
    f"/{probe.__name__}": probe
    for probe in (three_calls, two_parked, two_polls, late_body, three_early)
}


# What granian answers to these depends on a race between its two halves; in memory it is always
# the bad case.
RACY = {"granian": {"/three_early", "/two_polls"}}


class Probed:
    """Runs the probe that the path names, and keeps its answer."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.answered = anyio.Event()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        path = scope["path"]
        self.answers[path] = await PROBES[path](scope, receive, send)
        self.answered.set()
        self.answered = anyio.Event()


@asynccontextmanager
async def uvicorn_server(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_keep_alive=0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        yield
        server.should_exit = True


@asynccontextmanager
async def hypercorn_server(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]  # it closes it
    config.graceful_timeout = 0.1
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
        yield
        stop.set()


@asynccontextmanager
async def granian_server(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    port = listener.getsockname()[1]
    listener.close()  # it opens its own
    server = Granian(app, port=port, interface=Interfaces.ASGI, log_enabled=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        yield
        server.stop()


REAL: dict[str, Callable[[ASGIApp, socket.socket], AbstractAsyncContextManager[None]]] = {
    "uvicorn": uvicorn_server,
    "hypercorn": hypercorn_server,
    "granian": granian_server,
}


async def wait_until_it_listens(port: int) -> None:
    for _ in range(100):
        try:
            stream = await anyio.connect_tcp("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)  # noqa: TID251 - a server in a thread gives no sign
        else:
            await stream.aclose()
            return


def probes_of(server: str) -> set[str]:
    return PROBES.keys() - RACY.get(server, set())


async def over_the_wire(server: str) -> dict[str, object]:
    app = Probed()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with REAL[server](app, listener):
        await wait_until_it_listens(port)
        for path in probes_of(server):
            answered = app.answered
            async with open_request("POST", f"http://127.0.0.1:{port}{path}", json={}) as client:
                await client.read_chunk()
                await client.leave(Leave.FIN)
                await answered.wait()
    return app.answers


async def in_memory(server: str) -> dict[str, object]:
    app = Probed()
    for path in probes_of(server):
        await Exchange(app, path=path, json={}, server=server, leaves_after_chunks=1).run()
    return app.answers


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # what servers do in their own code
@pytest.mark.parametrize("server", REAL)
async def test_a_server_in_memory_answers_as_the_real_one_does(server: str):
    assert await in_memory(server) == await over_the_wire(server)
