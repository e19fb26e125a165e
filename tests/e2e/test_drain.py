"""SIGTERM with open streams: a grace, then the reason is drain, and the process ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from streamkit.testing import LeavingClient
from tests.e2e.checks import EVERY_WAY, asking, on_each
from tests.e2e.servers import SERVERS, Server, start

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(90)]  # a server may start first

GRACE = 0.5
SOME = ("uvicorn-h11", "uvicorn-httptools-uvloop", "hypercorn", "granian")
ENDLESS = ("/events", "/bytes", "/starlette", "/sse-starlette", "/call", "/thread")
EXIT = {"uvicorn": -15, "hypercorn": 0, "granian": 0}  # uvicorn dies of the signal after its work


@pytest.fixture
def draining(tmp_path: Path) -> Iterator[list[Server]]:
    """Servers of their own, which the test may stop."""
    servers: list[Server] = []
    for name in SERVERS if EVERY_WAY else SOME:
        report = str(tmp_path / name)
        servers.append(start(name, tmp_path, E2E_DRAIN_GRACE=str(GRACE), E2E_REPORT=report))
    for server in servers:
        server.wait_ready()
    yield servers
    for server in servers:
        server.stop()


async def test_a_shutdown_is_never_the_clients_doing_nor_the_other_way_round(
    draining: list[Server],
) -> None:
    await on_each(draining, drain_one)


async def drain_one(server: Server) -> None:
    async with AsyncExitStack() as stack:
        asked: dict[str, tuple[str, LeavingClient]] = {}
        for path in ENDLESS:
            asked[path] = await stack.enter_async_context(asking(server, path, "engine=storm"))
            await server.reached(asked[path][0], "decode")
        async with asking(server, "/events", "engine=storm") as (left, client):
            await server.reached(left, "decode")
            await client.leave()
            await server.ended(left)
        short, stays = await stack.enter_async_context(
            asking(server, "/bytes", "engine=storm&tokens=50")
        )
        await server.reached(short, "decode")

        signalled = time.monotonic()  # noqa: TID251 - compared with stamps of another process
        server.signal()
        assert len((await stays.read_body()).split()) == 50
        assert stays.ended_cleanly
        await assert_clients_are_told(server, asked)
        status = await anyio.to_thread.run_sync(server.wait_stopped)

    reports = json.loads(Path(server.environment["E2E_REPORT"]).read_text())  # noqa: ASYNC240
    kind = server.name.partition("-")[0]
    assert status == EXIT[kind], server.said()
    assert reports[left]["on_cancel"] == ["client_disconnect"]
    assert reports[short]["on_cancel"] == []
    for path, (request_id, _) in asked.items():
        report = reports[request_id]
        # sse-starlette may end its streams itself: it looks for uvicorn's exit every 0.5 s.
        early = path == "/sse-starlette" and report["reason"] is None
        # Both of them cancel the task: the stream in it hears that before we know who did it.
        from_outside = early or kind == "hypercorn"
        assert report["on_cancel"] == ["requested" if from_outside else "drain"], (path, report)
        assert report["reason"] == (None if early else "drain"), (path, report)
        assert -0.1 < report["marks"]["told"] - signalled - (0 if early else GRACE) < 5
        assert_stopped(report)


async def assert_clients_are_told(
    server: Server, asked: dict[str, tuple[str, LeavingClient]]
) -> None:
    events = await asked["/events"][1].read_events()
    if not server.name.startswith("hypercorn"):  # cancels its tasks, and then sends nothing more
        assert events[-1].event == "error"
        assert json.loads(events[-1].data)["error"]["reason"] == "drain"
        assert (await asked["/call"][1].read_head()).status == 503
    for path in ("/bytes", "/starlette", "/thread"):
        _, client = asked[path]
        await client.read_body()
        assert not client.ended_cleanly, path


def assert_stopped(report: dict[str, Any]) -> None:
    assert (report["begun"], report["returned"], report["generators_open"]) == (1, 1, 0), report
    engine = report["engine"]
    if engine is not None:
        assert (engine["aborts"], engine["end"]) == (1, "aborted"), report
        assert engine["steps_after_cancel"] <= 1, report
