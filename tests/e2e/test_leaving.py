"""A client that leaves, on real servers: in each phase one abort, proof of stop, the slot free."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from streamkit.testing import Leave
from tests.e2e.checks import (
    EVERY_WAY,
    WAYS,
    asking,
    assert_cancelled,
    assert_told_once,
    serve_one,
)
from tests.e2e.servers import SERVERS, Server

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(90)]  # a server may start first

LONG = "words=4000"  # 2.5 s of prefill


@dataclass(frozen=True)
class Scene:
    """What the client asks for, and how far the request is when it leaves."""

    path: str
    phase: str
    query: str = ""
    behind: bool = False  # another request has the only slot


SCENES = {
    "queued": Scene("/events", "queued", behind=True),
    "prefill": Scene("/bytes", "prefill", query=LONG),
    "EventStream": Scene("/events", "decode"),
    "ByteStream": Scene("/bytes", "decode"),
    "StreamingResponse": Scene("/starlette", "decode"),
    "EventSourceResponse": Scene("/sse-starlette", "decode"),
    "FastAPI": Scene("/fastapi/stream", "decode"),
    "below-BaseHTTPMiddleware": Scene("/base/stream", "decode"),
    "slow-step": Scene("/events", "decode", query="engine=slow"),
    "not-streaming-queued": Scene("/call", "queued", behind=True),
    "not-streaming": Scene("/call", "decode"),
}
KINDS = {name for name, scene in SCENES.items() if scene.phase == "decode"} - {
    "EventStream",
    "slow-step",
    "not-streaming",
}


def cases(names: Iterable[str], ways: tuple[Leave, ...] = WAYS) -> list[Any]:
    """Every scene on every server; which way the client leaves goes round, or is every one."""
    turn = itertools.cycle(ways)
    return [
        pytest.param(server, name, how, id=f"{server}-{name}-{how}")
        for name, server in itertools.product(names, SERVERS)
        if EVERY_WAY or name not in KINDS or is_turn_of(name, server)
        for how in (ways if EVERY_WAY else (next(turn),))
    ]


def is_turn_of(name: str, server: str) -> bool:
    """Of what differs in its kind and not in its phase, every server has every other one."""
    return (list(SCENES).index(name) + list(SERVERS).index(server)) % 2 == 0


def scenes(*names: str, ways: tuple[Leave, ...] = WAYS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("server", "name", "how"), cases(names, ways), indirect=["server"]
    )


@asynccontextmanager
async def occupied(server: Server) -> AsyncIterator[None]:
    """Somebody who stays has the only slot, and keeps it whatever happens behind."""
    async with asking(server, "/bytes") as (request_id, client):
        await server.reached(request_id, "decode")
        yield
        assert await client.read_chunk()
        await client.leave()
        assert_told_once(await server.ended(request_id), "decode")


async def leave(server: Server, scene: Scene, how: Leave) -> None:
    async with asking(server, scene.path, scene.query) as (request_id, client):
        await server.reached(request_id, scene.phase)
        await client.leave(how)
        assert_told_once(await server.ended(request_id), scene.phase)


@scenes(*SCENES)
async def test_the_engine_is_told_once_and_proved_stopped(
    server: Server, name: str, how: Leave
) -> None:
    scene = SCENES[name]
    if scene.behind:
        async with occupied(server):
            await leave(server, scene, how)
    else:
        await leave(server, scene, how)

    await serve_one(server)


@scenes("thread")
async def test_a_sync_generator_is_closed_in_its_thread(
    server: Server, name: str, how: Leave
) -> None:
    async with asking(server, "/thread") as (request_id, client):
        await server.reached(request_id, "decode")
        await client.leave(how)
        report = await server.ended(request_id)

    assert_cancelled(report)
    assert 1 <= report["yielded"] < 1_000


@scenes("upload")
async def test_a_client_that_leaves_in_the_middle_of_its_body_costs_the_engine_nothing(
    server: Server, name: str, how: Leave
) -> None:
    upload = asking(
        server, "/upload", method="POST", headers={"content-length": "100000"}, timeout=5
    )
    async with upload as (request_id, client):
        await client.send(b"x" * 20_000)
        await server.reached(request_id, "body")
        await client.leave(how)
        report = await server.ended(request_id)

    assert report["ended"], report
    assert (report["returned"], report["error"]) == (1, None), report
    assert (report["reason"], report["engine"], report["generators"]) == (
        "client_disconnect",
        None,
        0,
    )


@scenes("blocked", ways=(Leave.FIN, Leave.RST))
async def test_a_send_that_is_blocked_is_released_when_its_client_leaves(
    server: Server, name: str, how: Leave
) -> None:
    async with asking(server, "/flood", receive_buffer=4_096) as (request_id, client):
        await client.leave(Leave.STOP_READING)
        await server.reached(request_id, "blocked")
        await client.leave(how)
        report = await server.ended(request_id)

    assert_cancelled(report)
    assert report["yielded"] < 1_000  # a FIN comes after what was there to read


@scenes("unread-body")
async def test_a_long_prompt_that_nobody_read_hides_no_client_that_leaves(
    server: Server, name: str, how: Leave
) -> None:
    body = {"prompt": "y" * 500_000}
    asked = asking(server, "/events", LONG, method="POST", json=body)
    async with asked as (request_id, client):
        await server.reached(request_id, "prefill")
        await client.leave(how)
        assert_told_once(await server.ended(request_id), "prefill")
