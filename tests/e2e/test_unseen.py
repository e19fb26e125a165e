"""What no server reports: clients that stop reading, or hide their leaving behind more bytes.

The limit for a blocked write is 0.5 s here, and what no event tells is looked for every 0.5 s.
"""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import pytest

from streamkit.testing import Leave, LeavingClient, open_connection
from tests.e2e.checks import (
    asking,
    assert_cancelled,
    assert_told_once,
    new_id,
    on_each,
    serve_one,
)
from tests.e2e.servers import Server

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(90)]  # a server may start first

BOUND = 5.0  # seconds; 1.0 and a busy machine


def told_after(report: dict[str, Any], since: float) -> float:
    return report["marks"]["told"] - since


async def test_a_client_that_stays_and_reads_nothing_is_cancelled_within_the_limit(
    all_servers: list[Server],
) -> None:
    async def check(server: Server) -> None:
        async with asking(server, "/hasty/flood", receive_buffer=4_096) as (request_id, client):
            await client.leave(Leave.STOP_READING)
            report = await server.ended(request_id)
        assert_cancelled(report, "write_stalled")
        assert told_after(report, report["marks"]["blocked"]) < BOUND

    await on_each(all_servers, check)


async def test_a_client_that_closes_its_half_and_reads_nothing_is_cancelled_too(
    all_servers: list[Server],
) -> None:
    async def check(server: Server) -> None:
        async with asking(server, "/hasty/flood", receive_buffer=4_096) as (request_id, client):
            await client.leave(Leave.STOP_READING)
            await server.reached(request_id, "blocked")
            await client.leave(Leave.HALF_CLOSE)
            report = await server.ended(request_id)
        # Who is first: on the server's word, or on the limit.
        assert_cancelled(report, report["reason"])
        assert report["reason"] in {"client_disconnect", "write_stalled"}
        assert told_after(report, report["marks"]["blocked"]) < BOUND

    await on_each(all_servers, check)


async def pipeline_and_leave(server: Server, query: str, mark: str, how: Leave) -> dict[str, Any]:
    """Send a second request before the first is answered, which blinds most servers; then go."""
    request_id = new_id()
    async with open_connection(server.url) as client:
        await client.send_request("GET", f"/events?id={request_id}&{query}")
        await server.reached(request_id, mark)
        await client.send_request("GET", "/control/books")
        await client.leave(how)
        report = await server.ended(request_id)
        assert told_after(report, client.left_at or 0) < BOUND, (server.name, report)
    return report


@pytest.mark.parametrize("how", [Leave.FIN, Leave.RST])
async def test_a_client_that_pipelined_and_left_is_noticed_by_a_write(
    all_servers: list[Server], how: Leave
) -> None:
    async def check(server: Server) -> None:
        assert_told_once(await pipeline_and_leave(server, "", "decode", how), "decode")
        await serve_one(server)

    await on_each(all_servers, check)


@pytest.mark.parametrize("how", [Leave.FIN, Leave.RST])
async def test_a_client_that_pipelined_and_left_is_noticed_before_the_first_token(
    all_servers: list[Server], how: Leave
) -> None:
    """On uvicorn the kernel is asked. On hypercorn and granian it takes a write: a heartbeat."""

    async def check(server: Server) -> None:
        beat = "" if server.name.startswith("uvicorn") else "&heartbeat=1"
        report = await pipeline_and_leave(server, f"words=20000{beat}", "prefill", how)
        assert_told_once(report, "prefill")
        await serve_one(server)

    await on_each(all_servers, check)


async def test_a_body_that_is_too_long_to_read_ahead_hides_a_client_for_a_bounded_time(
    all_servers: list[Server],
) -> None:
    # uvicorn's connection can be looked at; on hypercorn a write blocks; on granian nothing helps.

    async def check(server: Server) -> None:
        request_id = new_id()
        target = f"/hasty/events?id={request_id}&words=400"
        async with open_connection(server.url) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(send_too_much, client, target)
            await server.reached(request_id, "prefill")
            await client.leave(Leave.RST)
            report = await server.ended(request_id)
        on_uvicorn = server.name.startswith("uvicorn")
        assert_cancelled(report, "client_disconnect" if on_uvicorn else "write_stalled")
        assert told_after(report, client.left_at or 0) < BOUND

    await on_each([s for s in all_servers if not s.name.startswith("granian")], check)


async def send_too_much(client: LeavingClient, target: str) -> None:
    with contextlib.suppress(RuntimeError):  # the server stops reading; then the client leaves
        await client.send_request("POST", target, json={"x": "y" * 4_000_000})
