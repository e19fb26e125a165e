"""Clients that send or read a byte now and then: what bounds them is the whole, not the pause."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator

import anyio
import httpx
import pytest
from anyio.abc import ByteReceiveStream, ByteSendStream

from .serving import FULL, LIMIT, Served, serving

pytestmark = pytest.mark.realtime

LOOPS = {"h11": "asyncio", "httptools": "uvloop"}
READ_TIMEOUT = 0.5
PAUSE = 0.05  # seconds from one byte to the next: far less than any bound
BOUND = 3.0
HEAD = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
HANDSHAKE = (
    b"GET /v1/websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture(scope="module", params=LOOPS if FULL else ["httptools"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    parser = f"--http={request.param}", f"--loop={LOOPS[request.param]}"
    limits = f"--read-timeout={READ_TIMEOUT}", f"--loss-bound={BOUND}"
    with serving(*parser, *limits, step_ms=1, speculative=64) as served:
        yield served


def bytes_of(text: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in text]


DRIPS = {
    "head": (b"", bytes_of(HEAD + b"x-a: " + b"a" * 1_000)),
    "second head": (b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n", bytes_of(HEAD * 10)),
    "handshake of a websocket": (b"", bytes_of(HANDSHAKE + b"x-a: " + b"a" * 1_000)),
    "body": (HEAD + b"content-length: 1000\r\n\r\n", [b" "] * 999),
    "body in chunks": (HEAD + b"transfer-encoding: chunked\r\n\r\n", [b"1\r\n \r\n"] * 999),
    "body that nobody reads": (
        b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n",
        [b" "] * 999,
    ),
}


async def send_slowly(client: ByteSendStream, pieces: list[bytes]) -> None:
    with contextlib.suppress(anyio.BrokenResourceError):
        for piece in pieces:
            await client.send(piece)
            await anyio.sleep(PAUSE)


async def read_to_the_end(client: ByteReceiveStream) -> bytes:
    received = b""
    with contextlib.suppress(anyio.BrokenResourceError):
        async for piece in client:
            received += piece
    return received


async def test_who_sends_a_byte_now_and_then_is_cut_off_when_the_time_is_over(
    served: Served,
) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    answers: dict[str, bytes] = {}

    async def drip(name: str, pieces: list[bytes]) -> None:
        async with (
            await anyio.connect_tcp(host, int(port)) as client,
            anyio.create_task_group() as sender,
        ):
            sender.start_soon(send_slowly, client, pieces)
            answers[name] = await read_to_the_end(client)
            sender.cancel_scope.cancel()

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as clients:
            for name, (at_once, slowly) in DRIPS.items():
                clients.start_soon(drip, name, [at_once, *slowly])

    last = {name: answer.rpartition(b"HTTP/1.1 ")[2][:3] for name, answer in answers.items()}
    assert last == dict.fromkeys(DRIPS, b"408")
    engine = await anyio.to_thread.run_sync(served.get, "/v1/engine")
    assert (engine["running"], engine["queued"]) == (0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="it takes TCP_USER_TIMEOUT")
def test_who_reads_a_byte_now_and_then_is_cut_off_after_the_bound(served: Served) -> None:
    """The kernel offers no room for single bytes; what it holds of a whole answer goes as well."""
    with (
        asking(served, "whole", max_tokens=16_000) as whole,
        asking(served, "endless", max_tokens=900_000, stream=True) as endless,
    ):
        began = time.monotonic()  # noqa: TID251 - real time is what this is about
        while connections(served) > 1:  # the one that asks
            whole.recv(1)
            endless.recv(1)
            time.sleep(0.2)  # noqa: TID251 - a slow client
        took = time.monotonic() - began  # noqa: TID251

    assert took < 4 * BOUND
    print(f"cut off after {took:.1f} s")
    assert served.get("/v1/requests/whole")["phase"] == "finished"
    assert served.get("/v1/requests/endless")["phase"] == "cancelled"
    assert served.get("/v1/engine")["running"] == 0


@contextlib.contextmanager
def asking(served: Served, request_id: str, **body: object) -> Iterator[socket.socket]:
    """A client with little room, which has asked."""
    payload = json.dumps({"prompt": "a", **body}).encode()
    host, port = served.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(LIMIT)
        client.connect((host, int(port)))
        headers = b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n"
        client.sendall(HEAD + headers % (request_id.encode(), len(payload)) + payload)
        yield client


def connections(served: Served) -> float:
    page = httpx.get(f"{served.url}/metrics", timeout=LIMIT).text
    return float(page.partition("\nstreamkit_connections ")[2].split()[0])
