"""Goals 1 and 2: what a token costs, and how many come through."""

from __future__ import annotations

import itertools

from benchmarks import client
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.servers import Server

MANY = 32  # streams at once
FIRST = 1_000  # tokens that tell how fast it is
PACED = {"steps": 1, "bursts": 8}  # tokens in each step of the engine
ENGINE_STEP = 0.01


def measure(bench: Bench) -> None:
    """Downloads from sources that never wait, then from one that makes tokens at a given pace."""
    for each in bench.rounds("ready", "ready_sync", "steps"):
        for shape, streams in itertools.product(("ready", "ready_sync"), (1, MANY)):
            for server in each.turns(shape):
                bench.attempt(_unpaced, each.turn, server, shape, streams)
        for shape in PACED:
            for server in each.turns(shape):
                bench.attempt(_paced, each.turn, server, shape)


def _unpaced(bench: Bench, turn: str, server: Server, shape: str, streams: int) -> None:
    first = _download(server, shape, streams, FIRST)
    speed = first.tokens / first.seconds
    each = max(FIRST, int(speed * bench.plan.seconds / streams))
    _download(server, shape, streams, each // 4)  # warm
    cpu = server.cpu()
    done = _download(server, shape, streams, each)
    cpu = server.cpu() - cpu
    name = f"{shape}, {_streams(streams)}"
    bench.add(
        Figure(f"{name}: rate", "tokens/s", more=True), server, turn, done.tokens / done.seconds
    )
    bench.add(Figure(f"{name}: CPU", "µs/token"), server, turn, cpu / done.tokens * 1e6)
    bench.add(Figure(f"{name}: load generator", "% of a core"), server, turn, done.client * 100)


def _paced(bench: Bench, turn: str, server: Server, shape: str) -> None:
    each = int(bench.plan.seconds / ENGINE_STEP) * PACED[shape]
    _download(server, shape, MANY, each // 4)
    cpu = server.cpu()
    done = _download(server, shape, MANY, each)
    cpu = server.cpu() - cpu
    name = f"{shape}, {_streams(MANY)}: CPU"
    bench.add(Figure(name, "µs/token"), server, turn, cpu / done.tokens * 1e6)


def _download(server: Server, shape: str, streams: int, n: int) -> client.Download:
    done = client.download(server.port, [server.request(shape, n=n)] * streams)
    if done.tokens != n * streams:
        raise ValueError(f"{server.peer.name} sent {done.tokens} tokens of {n * streams}")
    return done


def _streams(count: int) -> str:
    return "one stream" if count == 1 else f"{count} streams"
