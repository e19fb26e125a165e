"""A small relay that does to HTTP what proxies do: holds back, ignores leaves, ends silences."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import anyio
from anyio.abc import SocketAttribute, SocketStream

LAST_CHUNK = b"0\r\n\r\n"
GATEWAY_TIMEOUT = b"HTTP/1.1 504 Gateway Time-out\r\nserver: relay\r\ncontent-length: 0\r\n\r\n"
GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What it does; by default nothing.

    Attributes:
        holds: Passes a stream on only when it is over.
        deaf: Goes on with a request whose client has left.
        idle: Ends what is silent for so many seconds.
        renames: Gives each request an id of its own.
        finishes: Ends a stream that broke off as if it were whole.
    """

    holds: bool = False
    deaf: bool = False
    idle: float = 60.0
    renames: bool = False
    finishes: bool = False
    spoke: bool = False  # something of the answer has been passed on


@asynccontextmanager
async def relaying(url: str, **habits: object) -> AsyncIterator[str]:
    """Relay to the server at ``url`` while the block runs; gives the relay's URL."""
    host, port = url.rpartition("/")[2].split(":")
    has = Habits(**habits)  # type: ignore[arg-type]

    async def serve(client: SocketStream) -> None:
        server = await anyio.connect_tcp(host, int(port))
        async with client, server, anyio.create_task_group() as tasks:
            tasks.start_soon(_there, client, server, has)
            await _back(server, client, has)
            tasks.cancel_scope.cancel()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


async def _there(client: SocketStream, server: SocketStream, has: Habits) -> None:
    with suppress(*GONE):
        while True:
            data = await client.receive()
            if has.renames:
                data = re.sub(rb"(?<=x-request-id: )[^\r]*", secrets.token_hex(8).encode(), data)
            await server.send(data)
    if not has.deaf:
        with suppress(*GONE):
            await server.send_eof()


async def _back(server: SocketStream, client: SocketStream, has: Habits) -> None:
    held = b""
    with suppress(*GONE, TimeoutError):
        while True:
            with anyio.fail_after(has.idle):
                held += await server.receive()
            if not has.holds or b"chunked" not in held or held.endswith(LAST_CHUNK):
                await _say(client, held, has)
                held, has = b"", replace(has, spoke=True)
    if has.finishes and has.spoke:
        await _say(client, LAST_CHUNK, has)
    if not has.spoke:
        await _say(client, GATEWAY_TIMEOUT, has)


async def _say(client: SocketStream, data: bytes, has: Habits) -> None:
    try:
        await client.send(data)
    except GONE:
        if not has.deaf:
            raise
