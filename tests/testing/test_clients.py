"""Clients on real sockets: each way to leave is what its name says, seen from the server."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from streamkit.testing import (
    Leave,
    LeavingClient,
    ResponseEnded,
    encode_request,
    open_connection,
    open_request,
)

pytestmark = pytest.mark.realtime("asyncio", "uvloop")

Handler = Callable[["Peer"], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Peer:
    """The server's end of a connection, as bare as possible."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.seen = b""
        self.end: tuple[str, float] | None = None

    async def read_request(self, end: bytes = b"}") -> None:
        while not self.seen.endswith(end):
            self.seen += await self.receive()

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, 65_536)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    def reset_at_close(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def watch(self) -> None:
        """Wait for the end of the connection and note what it looked like."""
        try:
            while data := await self.receive():
                self.seen += data
            self.end = ("fin", time.monotonic())  # noqa: TID251
        except ConnectionResetError:
            self.end = ("rst", time.monotonic())  # noqa: TID251


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[tuple[str, list[Peer]]]:
    """Serve one connection with ``handle``; the end of the block waits until that has ended."""
    peers: list[Peer] = []

    async def serve() -> None:
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        with accepted:
            peers.append(Peer(accepted))
            await handle(peers[-1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            yield url_of(listener), peers


async def greet_and_watch(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(HEAD + chunk(b"data: 1\n\n"))
    await peer.watch()


@pytest.mark.parametrize(
    ("how", "end"),
    [(Leave.FIN, "fin"), (Leave.RST, "rst"), (Leave.HALF_CLOSE, "fin"), (Leave.KILL, "fin")],
)
async def test_the_server_sees_the_end_that_was_named(how: Leave, end: str):
    async with (
        serving(greet_and_watch) as (url, peers),
        open_request("POST", f"{url}/x?y=1", json={}) as client,
    ):
        assert (await client.read_event()).data == "1"
        assert client.left_at is None
        await client.leave(how)

    [peer] = peers
    assert peer.seen.startswith(b"POST /x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert peer.end is not None
    kind, at = peer.end
    assert kind == end
    assert client.left_at is not None
    assert 0 <= at - client.left_at < 2


@pytest.mark.parametrize(
    ("how", "end", "send_fails"), [(Leave.FIN, "fin", False), (Leave.KILL, "rst", True)]
)
async def test_a_fin_is_a_fin_even_with_bytes_unread_and_a_killed_process_is_a_reset(
    how: Leave, end: str, send_fails: bool
):
    """The kernel resets a socket that is closed with bytes unread; FIN reads them before."""
    sent = anyio.Event()
    failed: list[OSError] = []

    async def flood(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(HEAD + chunk(b"x" * 100_000))
        sent.set()
        await peer.watch()
        try:
            await peer.send(b"x")
        except OSError as error:
            failed.append(error)

    async with serving(flood) as (url, peers), open_request("POST", url, json={}) as client:
        await client.read_head()
        await sent.wait()
        await client.leave(how)

    assert peers[0].end is not None
    assert peers[0].end[0] == end
    assert bool(failed) is send_fails


async def test_a_client_that_closed_its_half_goes_on_reading():
    async def answer_late(peer: Peer) -> None:
        await peer.read_request()
        await peer.watch()
        await peer.send(HEAD + chunk(b"late") + chunk(b""))

    async with serving(answer_late) as (url, peers), open_request("POST", url, json={}) as client:
        await client.leave(Leave.HALF_CLOSE)
        assert await client.read_body() == b"late"
        assert client.ended_cleanly is True

    assert peers[0].end is not None
    assert peers[0].end[0] == "fin"


async def test_a_client_that_stops_reading_blocks_the_server():
    blocked_after: list[int] = []
    blocked = anyio.Event()

    async def flood(peer: Peer) -> None:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        await peer.read_request()
        for sent in range(1_000):
            with anyio.move_on_after(0.5):
                await peer.send(chunk(b"x" * 10_000))
                continue
            blocked_after.append(sent)
            blocked.set()
            return

    async with (
        serving(flood) as (url, _),
        open_request("POST", url, json={}, receive_buffer=4_096) as client,
    ):
        await client.leave(Leave.STOP_READING)
        with pytest.raises(RuntimeError, match=r"has left \(stop_reading\) and reads no"):
            await client.read_head()
        await blocked.wait()

    [sent] = blocked_after
    assert sent < 100


async def test_leaving_ends_a_send_that_waits_elsewhere():
    """And the next connection, which gets the number of the closed socket, is heard."""

    async def read_nothing(peer: Peer) -> None:
        await left.wait()

    async def send(client: LeavingClient) -> None:
        with pytest.raises(RuntimeError, match=r"left \(rst\) while it was sending"):
            await client.send(b"x" * 50_000_000)

    left = anyio.Event()
    async with serving(read_nothing) as (url, _):
        async with open_connection(url) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(send, client)
            await anyio.sleep(0.1)  # the kernel's buffers are full: it waits for the loop
            await client.leave(Leave.RST)
        left.set()
    async with serving(greet_and_watch) as (url, _), open_request("POST", url, json={}) as client:
        assert (await client.read_event()).data == "1"


async def test_leaving_ends_a_read_that_waits_elsewhere():
    async def silent(peer: Peer) -> None:
        await peer.read_request()
        await peer.watch()

    async def read(client: LeavingClient) -> None:
        with pytest.raises(RuntimeError, match=r"left \(rst\) while it was reading"):
            await client.read_head()

    async with (
        serving(silent) as (url, peers),
        open_request("POST", url, json={}) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(read, client)
        await anyio.wait_all_tasks_blocked()
        left = time.monotonic()  # noqa: TID251
        await client.leave(Leave.RST)

    assert time.monotonic() - left < 4  # noqa: TID251 - the read would wait for five seconds

    assert peers[0].end is not None
    assert peers[0].end[0] == "rst"


async def test_events_are_read_one_by_one_or_many_at_a_time():
    async def stream(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(HEAD)
        for number in range(5):
            await peer.send(chunk(b": beat\ndata: %d\n\n" % number))
        await peer.send(chunk(b""))

    async with serving(stream) as (url, _), open_request("POST", url, json={}) as client:
        assert (await client.read_head()).status == 200
        assert [event.data for event in await client.read_until(2)] == ["0", "1"]
        assert client.ended_cleanly is None
        assert [event.data for event in await client.read_events()] == ["2", "3", "4"]
        assert client.ended_cleanly is True
        assert client.comments == ["beat"] * 5
        with pytest.raises(ResponseEnded, match=r"ended \(cleanly\) after 5 events"):
            await client.read_event()


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_stream_that_the_server_cuts_off_did_not_end_cleanly(how: str):
    async def cut(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(HEAD + chunk(b"data: 1\n\n"))
        if how == "rst":
            peer.reset_at_close()

    async with serving(cut) as (url, _), open_request("POST", url, json={}) as client:
        with contextlib.suppress(ResponseEnded):  # a reset may overtake the event
            await client.read_event()
        with pytest.raises(ResponseEnded, match=r"ended \(cut off\) after"):
            await client.read_event()
        assert (client.ended_cleanly, client.cut_by) == (False, how)


@pytest.mark.parametrize(("how", "cleanly"), [("fin", True), ("rst", False)])
async def test_a_body_without_announced_end_ends_cleanly_with_a_fin_only(how: str, cleanly: bool):
    async def cut(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nx")
        await read.wait()
        if how == "rst":
            peer.reset_at_close()

    read = anyio.Event()
    async with serving(cut) as (url, _), open_request("POST", url, json={}) as client:
        assert await client.read_chunk() == b"x"
        read.set()
        assert await client.read_body() == b""
        assert (client.ended_cleanly, client.cut_by) == (cleanly, how)


async def test_a_server_that_says_nothing_is_a_connection_error():
    async def hang_up(peer: Peer) -> None:
        await peer.read_request()

    async with serving(hang_up) as (url, _), open_request("POST", url, json={}) as client:
        with pytest.raises(ConnectionError, match=r"ended \(fin\) without a response"):
            await client.read_head()


async def test_each_wait_is_limited_and_says_what_had_come():
    async with (
        serving(greet_and_watch) as (url, _),
        open_request("POST", url, json={}, timeout=0.1) as client,
    ):
        await client.read_event()
        with pytest.raises(
            TimeoutError,
            match=r"nothing came within 0\.1 s, <ResponseReader 200, open, 0 chunks",
        ):
            await client.read_event()


async def test_half_a_request_can_be_sent_and_the_rest_later():
    async def answer(peer: Peer) -> None:
        peer.seen += await peer.receive()
        assert peer.seen == b"POST /chat HT"
        await peer.send(HEAD)
        await peer.read_request()
        await peer.send(chunk(b""))

    async with serving(answer) as (url, peers):
        async with open_connection(url) as client:
            rest = await client.send_request("POST", "/chat", json={"n": 1}, first_bytes=13)
            assert (await client.read_head()).status == 200
            await client.send(rest)
            assert await client.read_body() == b""

        assert peers[0].seen == encode_request(
            "POST", "/chat", host=url.removeprefix("http://"), json={"n": 1}
        )


async def test_a_second_request_can_be_pipelined():
    async def answer_both(peer: Peer) -> None:
        await peer.read_request(b"/2 HTTP/1.1\r\nhost: x\r\n\r\n")
        await peer.send(HEAD + chunk(b"one") + chunk(b""))
        await peer.send(HEAD + chunk(b"two") + chunk(b""))

    async with serving(answer_both) as (url, _), open_connection(url) as client:
        await client.send_request("GET", "/1", headers={"host": "x"})
        await client.send_request("GET", "/2", headers={"host": "x"})
        with pytest.raises(RuntimeError, match="has not ended"):
            client.next_response()
        assert await client.read_body() == b"one"
        client.next_response()
        assert await client.read_body() == b"two"


async def test_sending_is_limited_too():
    async def deaf(peer: Peer) -> None:
        await gone.wait()

    gone = anyio.Event()
    async with serving(deaf) as (url, _), open_connection(url, timeout=0.1) as client:
        with pytest.raises(TimeoutError, match=r"50,000,000 bytes could not be sent within 0\.1 s"):
            await client.send(b"x" * 50_000_000)
        gone.set()


async def test_nobody_listening_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = url_of(server)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        async with open_connection(url):
            pass


async def test_its_repr_shows_both_ends():
    async with serving(greet_and_watch) as (url, _), open_request("POST", url, json={}) as client:
        await client.read_head()
        assert repr(client).startswith("<LeavingClient <TcpEnd connected>, <ResponseReader 200")
        await client.leave()
        assert "<TcpEnd left by fin>" in repr(client)
