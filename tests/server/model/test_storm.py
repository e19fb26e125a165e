"""500 clients at one slot, half of whom leave a real socket at random: no wedge, order, books."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections import Counter
from typing import Any

import anyio
import pytest

from streamkit.testing import Leave, open_request
from tests.server.serving import LIMIT, Served, serving

from .models.crowd import CHUNKS
from .watching import engine_has, get, until

pytestmark = pytest.mark.realtime

CLIENTS = 500
PATIENCE = 2.0  # seconds; who leaves does so within them, and the crowd takes as long
WAYS = (Leave.FIN, Leave.RST, Leave.HALF_CLOSE)


class Crowd:
    """All of them at once, and what those read who stayed."""

    def __init__(self, served: Served, seed: str) -> None:
        self.chance = random.Random(seed)
        self.read: dict[int, str] = {}
        self._served = served

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(CLIENTS):
                tasks.start_soon(self._be, number, number % 2 == 0)

    async def _be(self, number: int, leaves: bool) -> None:
        patience, how = self.chance.uniform(0, PATIENCE), self.chance.choice(WAYS)
        mine = {"x-request-id": str(number)}
        url = f"{self._served.url}/predict"
        async with open_request("POST", url, json=number, headers=mine, timeout=30) as client:
            if not leaves:
                self.read[number] = (await client.read_body()).decode()
                assert client.ended_cleanly
                return
            with contextlib.suppress(OSError), anyio.move_on_after(patience):
                while await client.read_chunk():
                    pass
                await anyio.sleep_forever()
            await client.leave(how)


@pytest.mark.parametrize("kind", ["AsyncGenerators", "Generators"])
async def test_it_never_wedges_and_those_who_stay_are_served_in_the_order_they_came(
    kind: str,
) -> None:
    target = f"tests.server.model.models.crowd:{kind}"
    limits = ("--max-queued", str(CLIENTS), "--remembered", str(CLIENTS + 1))
    with serving(target, *limits, "--access-log", "off") as served:
        crowd = Crowd(served, kind)
        with anyio.fail_after(15):
            await crowd.run()
            await until(lambda: engine_has(served, running=0, queued=0))
        model = await ask(served, "POST", "/v1/completions")
        requests = (await get(served, f"/v1/requests?limit={CLIENTS + 1}"))["requests"]
        metrics = await ask(served, "GET", "/metrics")
        served.signal()
        status, log = await anyio.to_thread.run_sync(served.wait)

    check_served(crowd, json.loads(model), requests)
    check_books(requests, metrics)
    assert status == 0
    assert "Traceback" not in log
    assert "do not balance" not in log


async def ask(served: Served, method: str, path: str) -> str:
    async with open_request(method, served.url + path, timeout=LIMIT) as client:
        return (await client.read_body()).decode()


def check_served(crowd: Crowd, model: dict[str, Any], requests: list[dict[str, Any]]) -> None:
    assert (model["running"], model["most"]) == (0, 1)
    arrived = {account["id"]: account["arrived_at"] for account in requests}
    order = [arrived[str(number)] for number in model["order"]]
    assert order == sorted(order)
    assert set(crowd.read) == set(range(1, CLIENTS, 2)) <= set(model["order"])
    for number, read in crowd.read.items():
        assert read == f"{number} " * CHUNKS


def check_books(requests: list[dict[str, Any]], metrics: str) -> None:
    ours = [account for account in requests if account["id"].isdecimal()]
    ends = Counter(account["phase"] for account in ours)
    assert sum(ends.values()) == CLIENTS
    assert set(ends) == {"finished", "cancelled"}
    assert CLIENTS // 10 < ends["cancelled"] <= CLIENTS // 2
    for account in ours:
        assert account["tokens"] == account["delivered"] + account["undelivered"]
        unbegun = account["cancelled_in"] == "reading"  # there is nothing to be proved
        assert account["proof"] == (None if unbegun else "joined"), account
    read = read_metrics(metrics)
    assert read["streamkit_requests_received_total"] == CLIENTS + 1
    assert read["streamkit_requests_ended_total"] == CLIENTS + 1
    assert read["streamkit_tokens_produced_total"] == sum(a["tokens"] for a in requests)
    assert read["streamkit_tokens_delivered_total"] == sum(a["delivered"] for a in requests)
    assert read["streamkit_ledger_violations_total"] == 0
    assert read["streamkit_requests_quarantined"] == 0


def read_metrics(text: str) -> Counter[str]:
    """Each metric, summed over its series."""
    read: Counter[str] = Counter()
    for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
        read[name] += float(value)
    return read
