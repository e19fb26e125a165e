"""Goals 2 and 3: how long from a client's close to its source being stopped."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Sequence

from benchmarks import client
from benchmarks.bench import Bench
from benchmarks.book import Mark
from benchmarks.figures import NEVER, Figure, percentile
from benchmarks.peers import POLLING
from benchmarks.servers import Server

PHASES = {
    "decode": "decode",
    "prefill": "prefill",
    "queued": "queued",
    "unary": "not streaming",
    "decode_sync": "sync generator",
}
PATIENCE = 2.5  # seconds until it is "never"; the slowest poll is 1 s
CROWD_PATIENCE = 10.0
BEGIN = 30.0  # seconds until a request has reached its source
ENOUGH = 15.0  # seconds for one phase of one contender


def measure(bench: Bench) -> None:
    """One client after the other leaves, in each phase; then a crowd does, all at once."""
    for each in bench.rounds(*PHASES, "idle"):
        for shape in PHASES:
            for server in each.turns(shape):
                bench.attempt(_leave_one_by_one, each.turn, server, shape)
        for server in each.turns("idle"):
            bench.attempt(_leave_together, each.turn, server)


def _leave_one_by_one(bench: Bench, turn: str, server: Server, shape: str) -> None:
    times = _times(server, shape, 5)  # warm
    if NEVER not in times:
        times = _times(server, shape, bench.plan.leaves)
    for share in (50, 99):
        figure = Figure(f"{PHASES[shape]}: close to stopped, p{share}", "ms")
        bench.add(figure, server, turn, percentile(times, share / 100))


def _times(server: Server, shape: str, count: int) -> list[float]:
    """So many, or fewer where each takes long, or one was never stopped."""
    times: list[float] = []
    give_up = time.monotonic() + ENOUGH
    while len(times) < count and NEVER not in times and time.monotonic() < give_up:
        times.append(_leave_once(server, shape))
    return times


def _leave_once(server: Server, shape: str) -> float:
    """Milliseconds."""
    rows = server.new_rows()
    sock = client.open_request(server.port, server.request(shape, rows[0], keep=True))
    if server.book.wait(rows, Mark.STARTED, BEGIN) == NEVER:
        raise TimeoutError(f"{server.peer.name} never began {shape}")
    if shape.startswith("decode"):
        client.read_first(sock)
    time.sleep(random.uniform(0.001, 1.0 if _polls(server, shape) else 0.015))
    left = client.leave(sock)
    return (server.book.wait(rows, Mark.STOPPED, PATIENCE) - left) * 1_000


def _polls(server: Server, shape: str) -> bool:
    """Then leaving right behind a poll each time would be unfair.

    Elsewhere 15 ms lie somewhere between two tokens: right behind one, the server is still awake
    from sending it.
    """
    return server.peer.name == POLLING and shape == "unary"


def _leave_together(bench: Bench, turn: str, server: Server) -> None:
    drop(server, 50)  # warm
    last = drop(server, bench.plan.idle)
    figure = Figure(f"{bench.plan.idle:,} dropped at once: last one stopped", "ms")
    bench.add(figure, server, turn, last)


def drop(server: Server, count: int) -> float:
    """Milliseconds from the first close of so many streams to the last one stopped."""
    rows = server.new_rows(count)
    socks = open_idle(server, rows)
    left = min(list(map(client.leave, socks)))
    return (server.book.wait(rows, Mark.STOPPED, CROWD_PATIENCE) - left) * 1_000


def open_idle(server: Server, rows: Sequence[int]) -> list[socket.socket]:
    """Streams that gave one token and then nothing."""
    requests = [server.request("idle", row, keep=True) for row in rows]
    socks = [client.open_request(server.port, request) for request in requests]
    for sock in socks:
        client.read_first(sock)
    return socks
