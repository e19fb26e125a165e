"""Many connections: more than there is room for, more than there are files for, all at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from .serving import FULL, LIMIT, Served, serving

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc"),
]

ROOM = 20
SPARE = 64  # that are told why they are sent away, at once
TAKEN = 64  # that have just come
LOOPS = {"h11": "asyncio", "httptools": "uvloop"}
BOTH = list(LOOPS)


@pytest.fixture(params=BOTH if FULL else ["h11"])  # asyncio needs our help, uvloop does not
def flags(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return f"--http={request.param}", f"--loop={LOOPS[request.param]}"


@pytest.fixture(scope="module", params=BOTH if FULL else ["httptools"])
def small(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A server with little room, that many tests share."""
    parser = f"--http={request.param}", f"--loop={LOOPS[request.param]}"
    with serving(*parser, f"--max-connections={ROOM}", step_ms=2) as small:
        yield small


def files(served: Served) -> int:
    return len(os.listdir(f"/proc/{served.process.pid}/fd"))  # noqa: PTH208 - only their number


def resident_kib(served: Served) -> int:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@contextlib.contextmanager
def open_connections(served: Served, count: int) -> Iterator[None]:
    """So many that say nothing."""
    host, port = served.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as held:
        for _ in range(count):
            held.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT))
        yield


def until(true: Callable[[], bool]) -> None:
    """Wait for it; there is no event across processes."""
    deadline = time.monotonic() + LIMIT  # noqa: TID251
    while not true():
        assert time.monotonic() < deadline  # noqa: TID251
        time.sleep(0.02)  # noqa: TID251


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def test_who_comes_when_it_is_full_is_told_to_come_again(small: Served) -> None:
    with httpx.Client(base_url=small.url) as inside:
        before = metric(inside, "streamkit_connections_turned_away_total")
        with open_connections(small, ROOM - 1):
            refused = small.generate(max_tokens=1)

            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["connection"] == "close"
            assert refused.json()["error"] == {
                "message": "too many connections are open; try again",
                "type": "refused",
                "code": "too_many_connections",
            }
            assert inside.get("/health/live").status_code == 200
            assert metric(inside, "streamkit_connections") == ROOM
            after = metric(inside, "streamkit_connections_turned_away_total")
            assert after - before == 1
        until(lambda: small.generate(max_tokens=1).status_code == 200)


def test_who_is_sent_away_and_stays_is_closed_and_never_more_than_a_few(
    small: Served,
) -> None:
    until(lambda: small.generate(max_tokens=1).status_code == 200)
    before = files(small)
    with open_connections(small, 20 * ROOM):
        assert files(small) <= before + ROOM + SPARE + TAKEN
        until(lambda: files(small) <= before + ROOM)
    until(lambda: files(small) <= before)


async def leave_at_once(served: Served, count: int) -> None:
    """Connect and leave, a hundred at a time: by FIN, by RST, with half a head."""
    host, port = served.url.removeprefix("http://").split(":")
    at_once = asyncio.Semaphore(100)

    async def one(number: int) -> None:
        async with at_once:
            with socket.socket() as client:
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
                if number % 3 == 0:
                    client.send(b"POST /generate HT")
                if number % 2 == 0:
                    reset = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, number)


async def test_a_flood_of_connects_and_leaves_leaves_nothing_and_others_are_served() -> None:
    """On asyncio's own loop, which takes all who wait in one turn if it is let."""
    waits: list[float] = []
    with serving("--http=h11", "--loop=asyncio", step_ms=2) as served:

        def one_request() -> None:
            answer = served.generate(max_tokens=2)
            assert answer.status_code == 200
            waits.append(answer.elapsed.total_seconds())

        await leave_at_once(served, 500)  # the first ones fill what is kept for later
        await anyio.to_thread.run_sync(one_request)
        await anyio.sleep(0.2)
        before, memory = files(served), resident_kib(served)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave_at_once, served, 3_000)
            for _ in range(3):
                await anyio.to_thread.run_sync(one_request)
        await anyio.to_thread.run_sync(one_request)

        await anyio.to_thread.run_sync(until, lambda: files(served) <= before)
        assert resident_kib(served) - memory < 8_000
    assert max(waits) < 2, waits


def test_a_server_without_files_left_waits_and_serves_again(flags: tuple[str, ...]) -> None:
    with serving(*flags, step_ms=2) as served, httpx.Client(base_url=served.url) as inside:
        inside.get("/health/live")
        few = files(served) + 10
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (few, few))
        with open_connections(served, 25):
            until(lambda: files(served) >= few)
            assert inside.get("/health/live").status_code == 200
        until(lambda: comes_in(served))
        served.signal()
        status, log = served.wait()

    assert status == 0
    assert "Traceback" not in log
    assert log.count("Too many open files") <= 1


def comes_in(served: Served) -> bool:
    try:
        return httpx.get(f"{served.url}/health/live", timeout=3).status_code == 200
    except httpx.TransportError:
        return False


def test_there_is_never_more_room_than_there_are_files() -> None:
    code = """
import resource
from streamkit.server._connections import room_for
for limits in (500, 5000), (3000, 5000), (500, 800), (100, 100):
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    print(room_for(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=True
    )

    raised, enough, partly_raised, hardly_any = done.stdout.splitlines()
    assert (raised, enough) == ("1000 1256", "1000 3000")
    assert (partly_raised, hardly_any) == ("544 800", "25 100")
    assert done.stderr.count("raise `ulimit -n`") == 2
