"""Goals 2 and 3: how long from a client's close to its source being stopped."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import client
from benchmarks.bench import Bench, Round
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
WARM = 5  # leavers of each contender that are not counted
PATIENCE = 2.5  # seconds until it is "never"; the slowest poll is 1 s
CROWD_PATIENCE = 10.0
BEGIN = 30.0  # seconds until a request has reached its source
ENOUGH = 15.0  # seconds for one phase of one contender; a slow poll has fewer leavers


@dataclass
class _Leavers:
    """Those of one contender in one phase.

    Attributes:
        server: Whom they leave.
        times: Milliseconds from each close to its source's end, the first ones included.
        spent: Seconds that all of it took.
    """

    server: Server
    times: list[float] = field(default_factory=list)
    spent: float = 0.0

    @property
    def wanted(self) -> bool:
        """Whether one more would say more."""
        return NEVER not in self.times and self.spent < ENOUGH

    @property
    def counted(self) -> list[float]:
        """The times without those of the first ones."""
        return self.times if NEVER in self.times else self.times[WARM:]


def measure(bench: Bench) -> None:
    """One client after the other leaves, in each phase; then a crowd does, all at once."""
    for each in bench.rounds(*PHASES, "idle"):
        for shape in PHASES:
            _leave_in_turns(bench, each, shape)
        for server in each.turns("idle"):
            bench.attempt(_leave_together, each.turn, server)


def _leave_in_turns(bench: Bench, each: Round, shape: str) -> None:
    """The next client leaves the next contender: what disturbs one of them disturbs all."""
    contenders = [_Leavers(server) for server in each.turns(shape)]
    for _ in range(WARM + bench.plan.leaves):
        for leavers in contenders:
            if leavers.wanted:
                bench.attempt(_one_more, each.turn, leavers.server, shape, leavers)
    for leavers in contenders:
        bench.attempt(_note, each.turn, leavers.server, shape, leavers)


def _one_more(_: Bench, __: str, server: Server, shape: str, leavers: _Leavers) -> None:
    began = time.monotonic()
    leavers.times.append(_leave_once(server, shape))
    leavers.spent += time.monotonic() - began


def _note(bench: Bench, turn: str, server: Server, shape: str, leavers: _Leavers) -> None:
    for share in (50, 99):
        figure = Figure(f"{PHASES[shape]}: close to stopped, p{share}", "ms")
        bench.add(figure, server, turn, percentile(leavers.counted, share / 100))


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
