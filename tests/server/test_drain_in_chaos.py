"""SIGTERM while clients come, stay, and leave in every way and phase: all stops are proved.

``SURVIVE=full`` does it with fifteen crowds.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from functools import partial

import anyio
import pytest

from streamkit.testing import Ask, Seen, draw_faults, visit

from .serving import FULL, Served, access_lines, serving

pytestmark = pytest.mark.realtime

CLIENTS = 60  # half of them stay
ARRIVAL = 0.02  # seconds between two
BEFORE = 0.5  # seconds from the first one to the signal; the last one comes behind it
STAY = 1.0  # seconds that one stays who stays badly


async def crowd(served: Served, seed: int, seen: list[Seen]) -> None:
    """All of them, one after the other."""
    faults = draw_faults(seed, CLIENTS // 2)

    async def one(number: int) -> None:
        fault = faults[number // 2] if number % 2 else "stay"
        tokens = 30 + 7 * (number % 40)
        body = {"prompt": "a " * (1 + number), "max_tokens": tokens, "stream": number % 3 > 0}
        accept = {"accept": "text/event-stream"}
        ask = Ask(url=f"{served.url}/generate", json=body, headers=accept, timeout=15)
        seen.append(await visit(ask, fault, stay=partial(anyio.sleep, STAY)))

    async with anyio.create_task_group() as clients:
        for number in range(CLIENTS):
            clients.start_soon(one, number)
            await anyio.sleep(ARRIVAL)


async def drained(seed: int, grace: float, *signals: int) -> tuple[list[Seen], str]:
    """Signal it in the middle of a crowd; return what the clients saw, and its log."""
    seen: list[Seen] = []
    flags = f"--drain-grace={grace}", "--loss-bound=3", "--access-log=json"
    with serving(*flags, step_ms=5, slots=8) as served:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crowd, served, seed, seen)
            await anyio.sleep(BEFORE)
            for number in signals:
                served.signal(number)
                await anyio.sleep(0.1)
        status, log = await anyio.to_thread.run_sync(served.wait)
        print(last_line(log), Counter(each.status for each in seen))
    assert status == 0, log
    assert len(seen) == CLIENTS
    return seen, log


def last_line(log: str) -> dict[str, int]:
    [line] = re.findall(r"ended: (.*)", log)
    return {key: int(value) for key, value in (pair.split("=") for pair in line.split())}


def check_all_stops_proved(log: str) -> None:
    """By what is left of the process: its log."""
    assert "Traceback" not in log
    books = last_line(log)
    assert (books["running"], books["unproved"], books["violations"]) == (0, 0, 0), books
    assert books["received"] == sum(
        books[name] for name in ("refused", "finished", "cancelled", "failed")
    )
    assert books["produced"] == books["delivered"] + books["undelivered"]
    assert (books["engine_running"], books["engine_tokens"]) == (0, books["produced"])
    lines = [line for line in access_lines(log) if line.get("reason")]
    unproved = [line for line in lines if line["produced"] and not line["proof"]]
    assert not unproved
    assert "drain" in {line["reason"] for line in lines}


def check_nobody_was_misled(seen: list[Seen]) -> None:
    """Who stayed has all of it, or was told, or was cut off; never a part that looks whole."""
    for each in seen:
        if each.status == 200 and each.complete and each.events:
            assert each.events[-1].event in {"done", "error"}, each
    assert {each.status for each in seen} <= {200, 503, 499, 400, None}, Counter(
        each.status for each in seen
    )


@pytest.mark.parametrize("seed", range(15 if FULL else 1))
async def test_sigterm_in_the_middle_of_chaos_ends_within_the_grace_and_proves_every_stop(
    seed: int,
) -> None:
    seen, log = await drained(seed, 0.5, signal.SIGTERM)

    check_all_stops_proved(log)
    check_nobody_was_misled(seen)


async def test_a_second_signal_in_the_middle_of_chaos_ends_the_grace_and_proves_every_stop() -> (
    None
):
    seen, log = await drained(99, 1_000, signal.SIGTERM, signal.SIGINT)

    check_all_stops_proved(log)
    check_nobody_was_misled(seen)
    assert "SIGINT again: cancelling what is left" in log
