"""The proxy with faults: each toxic does to a connection what its name says in toxiproxy."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
import pytest

from streamkit.server import cli
from streamkit.testing import TOXICS, FaultProxy, Toxic

realtime = pytest.mark.realtime
# Before, its sockets said of a connection that was reset that it had ended.
resets = pytest.mark.skipif(
    tuple(map(int, version("anyio").split(".")[:2])) < (4, 16), reason="anyio tells no resets"
)
LIMIT = 5.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mud", "toxic 'mud' is not one of latency, bandwidth, "),
        ("latency", "latency needs latency=NUMBER"),
        ("latency:ms=3", "latency takes latency, jitter, not 'ms'"),
        ("latency:latency=fast", "latency takes a number from 0 on, got 'fast'"),
        ("timeout:timeout", "expected NAME=NUMBER, got 'timeout'"),
        ("timeout:stream=sideways", "stream is upstream or downstream, not 'sideways'"),
        ("timeout:toxicity=2", "toxicity is from 0 to 1, not 2"),
        ("bandwidth:rate=0", "rate must be above 0"),
    ],
)
def test_what_is_no_toxic_is_refused_with_what_would_be_one(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".*") as refused:
        Toxic.parse(text)

    assert says in str(refused.value)


def test_a_toxic_gives_its_text_back() -> None:
    toxic = Toxic.parse("latency:latency=100,jitter=20,stream=upstream,toxicity=0.5")

    assert str(Toxic.parse(str(toxic))) == str(toxic)
    assert (toxic.stream, toxic.toxicity, toxic.numbers["jitter"]) == ("upstream", 0.5, 20)


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """Gives back what it gets, and ends when the other side does."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                async for data in stream:
                    await stream.send(data)
            except anyio.BrokenResourceError:
                resets.append("rst")

    resets: list[str] = []
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[anyio.abc.SocketStream]:
    with anyio.fail_after(LIMIT):
        async with await anyio.connect_tcp(proxy.host, proxy.port) as stream:
            yield stream


async def talk(proxy: FaultProxy, data: bytes, *, pieces: list[int] | None = None) -> bytes:
    """Send, say the end, read to the end."""
    async with connected(proxy) as stream:
        await stream.send(data)
        await stream.send_eof()
        got = [piece async for piece in stream]
    if pieces is not None:
        pieces += map(len, got)
    return b"".join(got)


async def took(act: Callable[[], Awaitable[object]]) -> float:
    began = anyio.current_time()
    await act()
    return anyio.current_time() - began


@realtime
async def test_without_a_toxic_every_byte_passes_and_so_does_the_end() -> None:
    data = bytes(range(256)) * 4_000
    async with echo() as upstream, FaultProxy(upstream) as proxy:
        assert await talk(proxy, data) == data
        assert proxy.passed == {"upstream": len(data), "downstream": len(data)}


@realtime
@pytest.mark.parametrize(
    "toxic",
    [
        "latency:latency=300",
        "latency:latency=300,stream=upstream",
        "slow_close:delay=300",
        "bandwidth:rate=10",  # 3 kB
        "slicer:average_size=100,delay=10000",  # 30 slices
    ],
)
async def test_what_delays_delays_and_changes_nothing(toxic: str) -> None:
    data = b"x" * 3_000
    async with echo() as upstream, FaultProxy(upstream, toxic) as proxy:
        seconds = await took(lambda: talk(proxy, data))
        assert await talk(proxy, data) == data

    assert 0.29 < seconds < 2


@realtime
async def test_latency_holds_back_and_does_not_slow_down() -> None:
    """Twenty pieces, each late by the same: not twenty times as late."""
    async with echo() as upstream, FaultProxy(upstream, "latency:latency=200") as proxy:

        async def act() -> None:
            async with await anyio.connect_tcp(proxy.host, proxy.port) as stream:
                for _ in range(20):
                    await stream.send(b"x")
                    await anyio.sleep(0.005)
                got = 0
                while got < 20:
                    got += len(await stream.receive())

        with anyio.fail_after(LIMIT):
            assert await took(act) < 1


@realtime
async def test_the_slicer_slices() -> None:
    pieces: list[int] = []
    toxic = "slicer:average_size=100,size_variation=50,delay=3000"
    async with echo() as upstream, FaultProxy(upstream, toxic) as proxy:
        await talk(proxy, b"x" * 2_000, pieces=pieces)

    assert sum(pieces) == 2_000
    assert len(pieces) > 10
    assert max(pieces) <= 500


@realtime
async def test_after_its_data_is_used_up_the_connection_ends() -> None:
    async with echo() as upstream, FaultProxy(upstream, "limit_data:bytes=1234") as proxy:
        assert await talk(proxy, b"x" * 5_000) == b"x" * 1_234


@resets
@realtime
async def test_a_peer_that_resets_resets() -> None:
    toxic = "reset_peer:timeout=100"
    async with echo() as up, FaultProxy(up, toxic) as proxy, connected(proxy) as stream:
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


@realtime
async def test_a_timeout_lets_nothing_pass_and_then_closes() -> None:
    async with echo() as upstream, FaultProxy(upstream, "timeout:timeout=200") as proxy:
        began = anyio.current_time()
        assert await talk(proxy, b"hello") == b""
        assert anyio.current_time() - began > 0.19


@realtime
async def test_a_relay_goes_silent_while_a_connection_is_open() -> None:
    async with echo() as up, FaultProxy(up) as proxy, connected(proxy) as stream:
        await stream.send(b"a")
        assert await stream.receive() == b"a"
        silence = proxy.add("timeout")
        await stream.send(b"b")
        with anyio.move_on_after(0.3) as nothing:
            await stream.receive()
        assert nothing.cancelled_caught
        proxy.remove(silence)
        await stream.send(b"c")
        assert await stream.receive() == b"c"


@resets
@realtime
async def test_a_reset_goes_through_the_proxy() -> None:
    ended: list[str] = []

    async def serve(stream: anyio.abc.SocketStream) -> None:
        try:
            async with stream:
                await stream.receive()
                await stream.receive()
        except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
            ended.append(type(error).__name__)
        over.set()

    over = anyio.Event()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with (
        listener,
        anyio.create_task_group() as tasks,
        FaultProxy(f"127.0.0.1:{port}") as proxy,
    ):
        tasks.start_soon(listener.serve, serve)
        stream = await anyio.connect_tcp(proxy.host, proxy.port)
        await stream.send(b"x")
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
        with anyio.fail_after(LIMIT):
            await over.wait()
        tasks.cancel_scope.cancel()

    assert ended == ["BrokenResourceError"]


@realtime
async def test_toxicity_is_the_part_of_connections_and_the_seed_decides_which() -> None:
    async def whole(seed: int) -> list[bool]:
        toxic = "limit_data:bytes=1,toxicity=0.5"
        async with echo() as upstream, FaultProxy(upstream, toxic, seed=seed) as proxy:
            return [await talk(proxy, b"ab") == b"ab" for _ in range(20)]

    first = await whole(1)
    assert first == await whole(1)
    assert first != await whole(2)
    assert 3 < sum(first) < 17


@resets
@realtime
async def test_what_cannot_be_reached_is_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
    async with FaultProxy(nobody) as proxy, connected(proxy) as stream:
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


@realtime
async def test_a_client_that_does_not_read_stops_its_server_after_a_megabyte_or_few() -> None:
    sent = 0

    async def serve(stream: anyio.abc.SocketStream) -> None:
        nonlocal sent
        async with stream:
            while True:
                await stream.send(b"x" * 65_536)
                sent += 65_536

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with (
        listener,
        anyio.create_task_group() as tasks,
        FaultProxy(f"127.0.0.1:{port}") as proxy,
    ):
        tasks.start_soon(listener.serve, serve)
        async with await anyio.connect_tcp(proxy.host, proxy.port):
            before = -1
            while before != sent:
                before = sent
                await anyio.sleep(0.3)
        tasks.cancel_scope.cancel()

    assert 0 < sent < 64 * 2**20


@realtime
def test_the_command_passes_on_until_it_is_interrupted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        to = f"127.0.0.1:{upstream.getsockname()[1]}"
        command = [
            sys.executable,
            "-m",
            "streamkit.server.cli",
            "chaos",
            "proxy",
            "127.0.0.1:0",
            to,
        ]
        process = subprocess.Popen(
            [*command, "--toxic", "limit_data:bytes=3,stream=upstream"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            host, _, port = process.stdout.readline().split()[3].rpartition(":")
            client = socket.create_connection((host, int(port)), timeout=LIMIT)
            accepted, _ = upstream.accept()
            with client, accepted:
                client.sendall(b"hello")
                accepted.settimeout(LIMIT)
                assert accepted.recv(100) == b"hel"
                assert accepted.recv(100) == b""
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["here", "127.0.0.1:1"], "'here' is not HOST:PORT"),
        (["127.0.0.1:0", "127.0.0.1:99999"], "'127.0.0.1:99999' is not HOST:PORT"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert cli.main(["chaos", "proxy", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_the_toxics_are_toxiproxys() -> None:
    assert set(TOXICS) == {
        "latency", "bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data"
    }  # fmt: skip
