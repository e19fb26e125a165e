"""How long each server takes to let the engine know that a client left, by how it left.

``python benchmarks/leaving_by_server.py [SERVER …]`` prints the tables of
``docs/reference/servers.md``: milliseconds from the client's system call to the engine being told.
Servers and app are those of ``tests/e2e``; ``-`` means not within four seconds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

from streamkit.testing import Leave, LeavingClient, open_http2
from tests.e2e.checks import asking, new_id
from tests.e2e.servers import HTTP2, SERVERS, Server, start

RUNS = 30  # of what takes a millisecond; the rest is done three times
PATIENCE = 4.0  # seconds
LONG = "words=20000"  # prefill for 12 s

Prepare = Callable[[LeavingClient], Awaitable[Any]]


async def nothing(client: LeavingClient) -> None:
    pass


async def pipeline(client: LeavingClient) -> None:
    await client.send_request("GET", "/control/books")


async def stop_reading(client: LeavingClient) -> None:
    await client.leave(Leave.STOP_READING)


#        what           path       query                  mark       how              before   body
Case = tuple[str, str, str, str, Leave, Prepare, int]
QUICK: list[Case] = [
    ("FIN", "/events", "", "decode", Leave.FIN, nothing, 0),
    ("RST", "/events", "", "decode", Leave.RST, nothing, 0),
    ("half-close", "/events", "", "decode", Leave.HALF_CLOSE, nothing, 0),
    ("FIN in prefill", "/events", LONG, "prefill", Leave.FIN, nothing, 0),
]
SLOW: list[Case] = [
    ("pipelined, tokens", "/events", "", "decode", Leave.FIN, pipeline, 0),
    ("pipelined, idle", "/events", LONG, "prefill", Leave.FIN, pipeline, 0),
    ("pipelined, beat 0.2 s", "/events", f"{LONG}&heartbeat=1", "prefill", Leave.FIN, pipeline, 0),
    ("900 KB unread, idle", "/events", LONG, "prefill", Leave.FIN, nothing, 900_000),
    ("stalled, then FIN", "/flood", "", "blocked", Leave.FIN, stop_reading, 0),
    ("stalled, then half", "/flood", "", "blocked", Leave.HALF_CLOSE, stop_reading, 0),
    ("stalled, limit 0.5 s", "/hasty/flood", "", "begun", Leave.STOP_READING, nothing, 0),
]


async def measure(server: Server, case: Case) -> float:
    _, path, query, mark, how, before, size = case
    body = {"method": "POST", "json": {"x": "y" * size}} if size else {}
    async with asking(server, path, query, **body) as (request_id, client):
        if before is stop_reading:
            await before(client)
        await server.reached(request_id, mark)
        if before is pipeline:
            await before(client)
        await anyio.sleep(0.003)
        await client.leave(how)
        return await told(server, request_id, client.left_at or 0.0)


async def told(server: Server, request_id: str, left_at: float) -> float:
    with anyio.move_on_after(PATIENCE):
        marks = (await server.ended(request_id))["marks"]
        return 1_000 * (marks["told"] - left_at) if "told" in marks else float("inf")
    return float("inf")


async def reset_stream(server: Server) -> float:
    request_id = new_id()
    async with open_http2(server.url) as client:
        stream = await client.request("GET", f"/events?id={request_id}")
        await stream.read_event()
        await stream.reset()
        return await told(server, request_id, stream.left_at or 0.0)


async def drop_connection(server: Server) -> float:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_http2(server.url))
        request_id = new_id()
        await (await client.request("GET", f"/events?id={request_id}")).read_event()
        await client.leave(Leave.FIN)
        return await told(server, request_id, client.left_at or 0.0)


async def show(what: str, runs: int, once: Callable[[], Awaitable[float]]) -> None:
    times = [await once() for _ in range(runs)]
    shown = [
        f"{t:.1f}" if t < float("inf") else "-" for t in (statistics.median(times), max(times))
    ]
    print(f"  {what:22} median {shown[0]:>7} ms, max {shown[1]:>7} ms", flush=True)


async def compare(server: Server) -> None:
    print(server.name)
    for runs, cases in ((RUNS, QUICK), (3, SLOW)):
        for case in cases:
            await show(case[0], runs, lambda case=case: measure(server, case))
    if server.name in HTTP2:
        await show("h2 RST_STREAM", RUNS, lambda: reset_stream(server))
        await show("h2 FIN", RUNS, lambda: drop_connection(server))


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or SERVERS:
            server = start(name, Path(folder))  # one at a time: the others would be in the way
            try:
                server.wait_ready()
                await compare(server)
            finally:
                server.stop()


if __name__ == "__main__":
    asyncio.run(main())
