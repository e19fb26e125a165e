"""The HTTP/2 client against a real server: one stream or all of them can go."""

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import hypercorn.asyncio
import hypercorn.config
import pytest

from streamkit.testing import Http2Client, Leave, open_http2
from streamkit.testing._connection import Message, Receive, Send

pytestmark = [
    pytest.mark.realtime("asyncio", "uvloop"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),  # in the server's own code
]


class Ticker:
    """Answers with events until its client leaves; ``/two`` ends after two."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.left: dict[str, anyio.Event] = {path: anyio.Event() for path in ("/a", "/b", "/two")}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen.append(f"{scope['method']} {path} {scope['http_version']} {body.decode()}")
        kind = (b"content-type", b"text/event-stream")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        for number in (1, 2):
            data = b"data: %d\n\n" % number
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if path == "/two":
            await send({"type": "http.response.body"})
        elif (await receive())["type"] == "http.disconnect":
            self.left[path].set()


@asynccontextmanager
async def talking(app: Ticker, timeout: float = 5) -> AsyncIterator[Http2Client]:
    config = hypercorn.config.Config()
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config.bind = [f"fd://{listener.detach()}"]  # it closes it
    config.graceful_timeout = 0.1
    config.loglevel = "CRITICAL"
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
        async with open_http2(url, timeout=timeout) as client:
            yield client
        stop.set()


async def test_a_response_comes_in_events_and_ends_cleanly():
    app = Ticker()
    async with talking(app) as client:
        stream = await client.request("POST", "/two", json={"n": 1}, headers={"X-Id": "7"})
        head = await stream.read_head()
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
        assert [event.data for event in await stream.read_events()] == ["1", "2"]
        assert stream.ended_cleanly is True
        assert repr(stream) == "<Http2Stream 1: 200, finished, 0 chunks waiting>"

    assert app.seen == ['POST /two 2 {"n": 1}']


async def test_a_reset_stream_goes_and_its_siblings_stay():
    app = Ticker()
    async with talking(app) as client:
        first, second = await client.request("GET", "/a"), await client.request("GET", "/b")
        assert [event.data for event in await second.read_until(2)] == ["1", "2"]
        assert (await first.read_event()).data == "1"

        await first.reset()

        assert first.left_at is not None
        with anyio.fail_after(5):
            await app.left["/a"].wait()
        assert not app.left["/b"].is_set()
        third = await client.request("GET", "/two")
        assert [event.data for event in await third.read_events()] == ["1", "2"]


@pytest.mark.parametrize("how", [Leave.FIN, Leave.RST, Leave.KILL])
async def test_a_dropped_connection_takes_all_streams_along(how: Leave):
    app = Ticker()
    async with talking(app) as client:
        streams = [await client.request("GET", path) for path in ("/a", "/b")]
        for stream in streams:
            await stream.read_head()

        await client.leave(how)

        assert client.left_at is not None
        with anyio.fail_after(5):
            await app.left["/a"].wait()
            await app.left["/b"].wait()


async def test_goaway_is_seen_although_the_connection_stays():
    app = Ticker()
    async with talking(app) as client:
        await (await client.request("GET", "/a")).read_head()
        await client.goaway()

        with anyio.fail_after(5):
            await app.left["/a"].wait()
        assert client.left_at is None


async def test_streams_can_be_read_at_the_same_time():
    read: dict[str, list[str]] = {}

    async def read_all(client: Http2Client, path: str) -> None:
        stream = await client.request("GET", path)
        read[path] = [event.data for event in await stream.read_until(2)]

    async with talking(Ticker()) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(read_all, client, "/a")
        tasks.start_soon(read_all, client, "/b")

    assert read == {"/a": ["1", "2"], "/b": ["1", "2"]}


async def test_a_connection_that_the_server_ends_cuts_its_streams():
    app = Ticker()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with open_http2(url) as client:
            stream = await client.request("GET", "/a")
            accepted, _ = listener.accept()
            accepted.close()
            with pytest.raises(ConnectionError, match="ended without a response: <Http2Stream 1"):
                await stream.read_head()
            assert (await stream.read_chunk(), stream.ended_cleanly) == (b"", False)

    assert app.seen == []


async def test_each_wait_is_limited():
    async with talking(Ticker(), timeout=0.1) as client:
        stream = await client.request("GET", "/a")
        await stream.read_until(2)
        with pytest.raises(TimeoutError, match=r"within 0\.1 s, <Http2Stream 1: 200, open"):
            await stream.read_event()


async def test_without_h2_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "h2.connection", None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ModuleNotFoundError, match="needs the package h2"):
            async with open_http2(url):
                pass
