"""Goal 4: what a stream takes that says nothing."""

from __future__ import annotations

import socket
import time

from benchmarks.bench import Bench
from benchmarks.client import leave
from benchmarks.figures import Figure
from benchmarks.measures.leaving import open_idle
from benchmarks.peers import BARE, OURS, STARLETTE
from benchmarks.servers import Server

WARM = 20
SETTLE = 0.5  # seconds


def measure(bench: Bench) -> None:
    """Streams that gave one token: their memory and CPU; then as many as there shall be at all."""
    for each in bench.rounds("idle", slow=True):
        for server in each.turns("idle"):
            bench.attempt(_hold, each.turn, server)
    for each in bench.rounds("idle", among=(BARE, OURS, STARLETTE), slow=True):
        for server in each.turns("idle"):
            bench.attempt(_crowd, each.turn, server)


def _hold(bench: Bench, turn: str, server: Server) -> None:
    _close(_open(server, WARM))
    before = server.memory()
    count = bench.plan.idle
    streams = _open(server, count)
    time.sleep(SETTLE)
    memory = (server.memory() - before) / count
    began, cpu = time.perf_counter(), server.cpu()
    time.sleep(bench.plan.watch)
    share = (server.cpu() - cpu) / (time.perf_counter() - began)
    _close(streams)
    name = f"{count:,} idle streams"
    bench.add(Figure(f"{name}: memory", "KiB/stream"), server, turn, memory)
    bench.add(Figure(f"{name}: CPU", "% of a core"), server, turn, share * 100)


def _crowd(bench: Bench, turn: str, server: Server) -> None:
    before, count = server.memory(), bench.plan.crowd
    streams = _open(server, count)
    memory = (server.memory() - before) / count
    alive = sum(map(_is_open, streams))
    _close(streams)
    name = f"{count:,} streams at once"
    bench.add(Figure(f"{name}: open", "streams", more=True), server, turn, alive)
    bench.add(Figure(f"{name}: memory", "KiB/stream"), server, turn, memory)


def _open(server: Server, count: int) -> list[socket.socket]:
    return open_idle(server, server.new_rows(count))


def _close(streams: list[socket.socket]) -> None:
    for stream in streams:
        leave(stream)


def _is_open(stream: socket.socket) -> bool:
    stream.setblocking(False)
    try:
        return bool(stream.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
