"""What the tests on real servers share: asking, and what a report must say."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from streamkit.testing import Leave, LeavingClient, open_request
from tests.e2e.servers import Server

EVERY_WAY: Final = os.environ.get("E2E") == "full"  # `make servers`
WAYS: Final = (Leave.FIN, Leave.RST, Leave.HALF_CLOSE)


def new_id() -> str:
    return uuid.uuid4().hex[:12]


@asynccontextmanager
async def asking(
    server: Server, path: str, query: str = "", *, method: str = "GET", **options: Any
) -> AsyncIterator[tuple[str, LeavingClient]]:
    """Send a request under a new id."""
    request_id = new_id()
    url = f"{server.url}{path}?id={request_id}&{query}"
    async with open_request(method, url, **options) as client:
        yield request_id, client


async def on_each(servers: Iterable[Server], check: Callable[[Server], Awaitable[None]]) -> None:
    """Check all servers at the same time: for what takes time, but no work."""

    async def named(server: Server) -> None:
        try:
            await check(server)
        except Exception as error:
            error.add_note(f"on {server.name}")
            raise

    async with anyio.create_task_group() as tasks:
        for server in servers:
            tasks.start_soon(named, server)


def assert_cancelled(report: dict[str, Any], reason: str = "client_disconnect") -> None:
    """Cancelled once, for that reason, and everything of it is closed."""
    assert report["ended"], report
    assert (report["begun"], report["returned"], report["error"]) == (1, 1, None), report
    assert report["on_cancel"] == [report["reason"]] == [reason], report
    assert (report["generators"], report["generators_open"]) == (1, 0), report
    # 499 is what the server is told of a request that nobody waits for any more.
    assert not report["complete"] or report["status"] == 499, report


def assert_told_once(report: dict[str, Any], phase: str) -> None:
    """One abort, in that phase, and the engine's own books prove that it stopped."""
    assert_cancelled(report)
    assert report["phase"] == phase, report
    engine, stop = report["engine"], report["stop"]
    assert (engine["aborts"], engine["end"]) == (1, "aborted"), report
    assert (stop["outcome"], stop["proof"], stop["steps"]) == ("cancelled", "observed", []), report
    assert engine["steps_after_cancel"] <= 1, report
    assert engine["tokens"] == report["handed_over"] + report["discarded"], report


def assert_untouched(report: dict[str, Any]) -> None:
    """It ended by itself, and nobody was told anything."""
    assert report["ended"], report
    assert (report["begun"], report["returned"], report["error"]) == (1, 1, None), report
    assert (report["reason"], report["on_cancel"]) == (None, []), report
    assert (report["status"], report["complete"]) == (200, True), report
    assert report["engine"] is None or report["engine"]["aborts"] == 0, report


async def serve_one(server: Server) -> None:
    """The only slot is free: a short request is served at once."""
    async with asking(server, "/events", "tokens=2") as (request_id, client):
        events = await client.read_events()
        assert [event.event for event in events] == ["message", "message", "done"]
        assert client.ended_cleanly
    assert_untouched(await server.ended(request_id))
