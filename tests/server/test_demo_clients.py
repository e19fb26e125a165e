"""The demo's own clients, on real sockets: how they leave, and what they take for an answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from streamkit.server.demo._client import Client
from streamkit.server.demo._plan import Leave
from streamkit.server.demo._talk import NoAnswer, talk_to

pytestmark = pytest.mark.realtime

LIMIT = 5  # seconds
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """A server that does with each connection what the test says."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        pytest.param(Leave.FIN, "end", id="fin"),
        pytest.param(Leave.RST, "reset", id="rst"),
        pytest.param(Leave.HALF_CLOSE, "end", id="half-close"),
    ],
)
async def test_a_client_leaves_in_the_way_that_is_named(how: Leave, seen: str) -> None:
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"c\r\ndata: hello\n\n\r\n")  # unread, when the client leaves
        try:
            await reader.read()
        except ConnectionResetError:
            heard.set_result("reset")
        else:
            heard.set_result("end")

    with anyio.fail_after(LIMIT):
        async with listening(serve) as url:
            client = await Client.connect(url)
            await client.ask("/", "a", {})
            before = anyio.current_time()
            await client.leave(how)

            assert await heard == seen
            assert client.left_at is not None
            assert before <= client.left_at <= anyio.current_time()
            client.close()


async def test_a_half_closed_client_goes_on_reading() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # to the end of what the client has to say
        writer.write(HEAD + b"c\r\ndata: hello\n\n\r\n0\r\n\r\n")

    with anyio.fail_after(LIMIT):
        async with listening(serve) as url:
            client = await Client.connect(url)
            await client.leave(Leave.HALF_CLOSE)

    assert client.events == 1


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        pytest.param([HEAD, b"5\r\nhello\r\n", b"0\r\n\r\n"], True, id="chunked"),
        pytest.param([HEAD, b"5\r\nhello\r\n0", b"\r\n\r\n"], True, id="cut anywhere"),
        pytest.param([HEAD, b"5\r\nhello\r\n"], False, id="chunked, broken off"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"], True, id="length"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"], False, id="short"),
        pytest.param([b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\n{}"], False, id="refused"),
        pytest.param([], False, id="nothing"),
    ],
)
async def test_only_a_success_that_came_to_its_end_is_whole(
    answer: list[bytes], whole: bool
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in answer:
            writer.write(piece)
            await writer.drain()

    with anyio.fail_after(LIMIT):
        async with listening(serve) as url:
            client = await Client.connect(url)
            await client.ask("/", "a", {})
            while await client.read():
                pass
            client.close()

    assert client.whole is whole


async def test_events_are_counted_also_where_a_read_cuts_them() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (b"data: a\n\nda", b"ta", b": b\n\n", b"data: c\n\n"):
            writer.write(piece)
            await writer.drain()
            await asked.wait()
            asked.clear()

    with anyio.fail_after(LIMIT):
        async with listening(serve) as url:
            client = await Client.connect(url)
            while await client.read():
                asked.set()
            client.close()

    assert client.events == 3


async def test_a_question_after_one_that_was_given_up_is_refused() -> None:
    """Its answer would be the one to the question before."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with anyio.fail_after(LIMIT):
        async with listening(serve) as url, talk_to(url) as talk:
            with anyio.move_on_after(0.05):
                await talk.get("/first")
            with pytest.raises(NoAnswer, match="given up half way"):
                await talk.get("/second")


async def test_what_is_not_answered_with_200_is_quoted() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nno such")

    with anyio.fail_after(LIMIT):
        async with listening(serve) as url, talk_to(url) as talk:
            with pytest.raises(NoAnswer, match="/x answered 404: no such"):
                await talk.get("/x")
