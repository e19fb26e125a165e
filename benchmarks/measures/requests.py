"""Goal 5: what a request costs that is answered at once."""

from __future__ import annotations

from benchmarks import client
from benchmarks.bench import Bench
from benchmarks.figures import Figure, percentile
from benchmarks.servers import Server

SHAPES = {
    "call": "coroutine call",
    "predict": "model class, async predict",
    "predict_sync": "model class, sync predict",
}
CONNECTIONS = 16


def measure(bench: Bench) -> None:
    """One connection for the latency, several for the rate and the CPU."""
    for each in bench.rounds(*SHAPES):
        for shape in SHAPES:
            for server in each.turns(shape):
                bench.attempt(_measure, each.turn, server, shape)


def _measure(bench: Bench, turn: str, server: Server, shape: str) -> None:
    name, request, count = SHAPES[shape], server.request(shape, keep=True), bench.plan.calls
    client.call(server.port, request, count // 4)  # warm
    alone = client.call(server.port, request, count // 2)
    latency = percentile(alone.latencies, 0.5) * 1e6
    bench.add(Figure(f"{name}: latency p50", "µs"), server, turn, latency)
    cpu = server.cpu()
    done = client.call(server.port, request, count, CONNECTIONS)
    cpu = server.cpu() - cpu
    rate = len(done.latencies) / done.seconds
    bench.add(Figure(f"{name}: CPU", "µs/request"), server, turn, cpu / len(done.latencies) * 1e6)
    bench.add(Figure(f"{name}: rate", "requests/s", more=True), server, turn, rate)
    bench.add(Figure(f"{name}: load generator", "% of a core"), server, turn, done.client * 100)
