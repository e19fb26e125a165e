"""A thousand clients, half of whom leave at random: the books balance, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from streamkit.testing import EventParser, Leave, LeavingClient, open_connection
from tests.e2e.checks import assert_cancelled, assert_untouched, new_id
from tests.e2e.servers import Server

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(90)]

CLIENTS = 1_000
AT_ONCE = 100
SEED = 20_261_122
ENDLESS = 100_000  # tokens
WAYS = (Leave.FIN, Leave.RST, Leave.HALF_CLOSE)
PATHS = (
    "/events",
    "/bytes",
    "/starlette",
    "/sse-starlette",
    "/fastapi/stream",
    "/base/stream",
    "/call",
    "/thread",
    "/upload",
)
EVENTS = {"/events", "/sse-starlette", "/upload"}


@dataclass(frozen=True)
class Plan:
    """What one client does."""

    id: str
    path: str
    tokens: int
    words: int
    leaves: bool
    how: Leave
    after_chunks: int  # it leaves then, or
    after_seconds: float  # then, whichever comes first

    @property
    def is_race(self) -> bool:
        """Whether it may leave at the very moment at which the answer ends."""
        return self.leaves and self.tokens < ENDLESS


def plans() -> list[Plan]:
    dice = random.Random(SEED)
    return [plan(dice, leaves=number % 2 == 0) for number in range(CLIENTS)]


def plan(dice: random.Random, *, leaves: bool) -> Plan:
    path = dice.choice(PATHS)
    long = leaves and dice.random() < 0.7
    patience = (0.0, 0.02, 0.3) if path == "/call" else (0.0, 0.02, 0.3, 20.0, 20.0)
    return Plan(
        id=new_id(),
        path=path,
        tokens=ENDLESS if long else dice.randint(1, 5 if path == "/thread" else 30),
        words=dice.choice((1, 1, 50, 1_000)),
        leaves=leaves,
        how=dice.choice(WAYS),
        after_chunks=dice.randint(0, 12),
        after_seconds=dice.choice(patience),
    )


class Storm:
    """All clients, a bounded number at a time, and what those who stayed got to read."""

    def __init__(self, server: Server) -> None:
        self.read: dict[str, str] = {}
        self._server = server
        self._room = anyio.Semaphore(AT_ONCE)

    async def run(self, clients: list[Plan]) -> None:
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(self._be, client)

    async def _be(self, plan: Plan) -> None:
        async with self._room, open_connection(self._server.url, timeout=30) as client:
            if plan.leaves:
                with contextlib.suppress(OSError):  # it is half way out of the door
                    await self._leave(client, plan)
            else:
                await self._ask(client, plan)
                body = await client.read_body()
                assert client.ended_cleanly, plan
                self.read[plan.id] = text_of(plan.path, body)

    async def _ask(self, client: LeavingClient, plan: Plan, first_bytes: int | None = None) -> None:
        method = "POST" if plan.path == "/upload" else "GET"
        target = f"{plan.path}?id={plan.id}&engine=storm&tokens={plan.tokens}&words={plan.words}"
        body = {"x": "y" * 5_000} if method == "POST" else None
        await client.send_request(method, target, json=body, first_bytes=first_bytes)

    async def _leave(self, client: LeavingClient, plan: Plan) -> None:
        part = 3_000 if plan.path == "/upload" and plan.after_chunks == 0 else None
        await self._ask(client, plan, part)
        with anyio.move_on_after(plan.after_seconds):
            for _ in range(plan.after_chunks):
                if not await client.read_chunk():
                    break
        await client.leave(plan.how)


def text_of(path: str, body: bytes) -> str:
    if path == "/call":
        return json.loads(body)["text"]
    if path in EVENTS:
        return "".join(event.data for event in EventParser().feed(body) if event.event != "done")
    return body.decode()


@pytest.mark.parametrize("server", ["uvicorn-httptools"], indirect=True)
async def test_the_books_of_a_storm_balance_to_the_token(server: Server) -> None:
    before = await server.books()
    clients = plans()
    storm = Storm(server)
    await storm.run(clients)
    reports: dict[str, dict[str, Any]] = await server.ask("/control/all")
    after = await server.books()

    for client in clients:
        check(client, reports.get(client.id), storm.read.get(client.id))
    seen = [reports[client.id] for client in clients if client.id in reports]
    ends = Counter(end_of(report) for report in seen)
    aborts = sum(report["engine"]["aborts"] for report in seen if report["engine"])
    assert aborts == ends["cancelled"] > 200, ends
    assert sum(ends.values()) == len(seen) > 900, ends
    phases = Counter(report["phase"] for report in seen)
    assert min(phases[phase] for phase in ("queued", "prefill", "decode")) > 10, phases
    for tokens in after["tokens"].values():
        assert tokens["total"] == tokens["of_requests"]
    assert after["idle"], after
    assert after["sockets"] == before["sockets"]


def end_of(report: dict[str, Any]) -> str:
    """One word for how it ended; each request has exactly one end, and an abort only if cut."""
    assert (report["begun"], report["returned"], report["error"]) == (1, 1, None), report
    if report["engine"] is None:
        return "no engine"
    outcome = report["stop"]["outcome"]
    assert report["engine"]["aborts"] == (outcome == "cancelled"), report
    # An abort that comes in its last step finds it complete.
    assert report["engine"]["end"] in {"finished": ["completed"]}.get(
        outcome, ["aborted", "completed"]
    )
    return outcome


def check(client: Plan, report: dict[str, Any] | None, read: str | None) -> None:
    if report is None:
        assert client.leaves, client  # so early that the server never saw a request
        return
    assert report["ended"], (client, report)
    engine = report["engine"]
    if engine is not None:
        assert engine["tokens"] == report["handed_over"] + report["discarded"], (client, report)
        assert engine["steps_after_cancel"] <= 1, (client, report)
    if not client.leaves:
        assert_untouched(report)
        assert read is not None
        assert len(read.split()) == client.tokens
        assert engine is None or report["handed_over"] == client.tokens
    elif not client.is_race:
        assert_gone(client, report)


def assert_gone(client: Plan, report: dict[str, Any]) -> None:
    assert report["reason"] == "client_disconnect", (client, report)
    if report["generators"]:
        assert_cancelled(report)
    if report["engine"] is not None:
        assert report["engine"]["end"] == "aborted", (client, report)
        assert report["stop"]["proof"] == "observed", (client, report)
