"""Goal 6: whether cost grows in a line, with streams, tokens, requests in flight, and cancels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from benchmarks import client
from benchmarks.bench import Bench
from benchmarks.figures import Figure, exponent
from benchmarks.measures.leaving import drop
from benchmarks.peers import BARE, OURS, SERVE
from benchmarks.servers import Server

TOKENS = 20  # of each stream
SIZES = (1, 10, 100, 1_000, 10_000)
LENGTHS = (1_000, 3_000, 10_000, 100_000, 1_000_000)
REPEAT = 20  # small sizes are done so often that the clock has something to measure
SETTLE = 0.1  # seconds


def measure(bench: Bench) -> None:
    """The server's CPU at each size, and the exponent of the power that fits best."""
    for each in bench.rounds(*{shape for shape, *_ in KINDS.values()}, among=WHO, slow=True):
        for kind, (shape, sizes, once) in KINDS.items():
            for server in each.turns(shape):
                bench.attempt(_grow, each.turn, server, kind, sizes, once)


def _grow(
    bench: Bench,
    turn: str,
    server: Server,
    kind: str,
    sizes: Sequence[int],
    once: Callable[[Server, int], None],
) -> None:
    once(server, 10)  # warm
    points = [(size, _cost(server, size, once)) for size in sizes[: bench.plan.sizes]]
    for size, cost in points:
        figure = Figure(point_name(kind, size), "ms", detail=True)
        bench.add(figure, server, turn, cost * 1_000)
    bench.add(Figure(f"growth with {kind}: exponent", ""), server, turn, exponent(points))
    last = Figure(f"growth with {kind}: exponent of the last decade", "")
    bench.add(last, server, turn, exponent(points[-2:]))


def point_name(kind: str, size: int) -> str:
    """The figure of one point of a curve."""
    return f"growth with {kind}: CPU at {size:,}"


def _cost(server: Server, size: int, once: Callable[[Server, int], None]) -> float:
    """Seconds of the server's CPU."""
    repeat = max(1, REPEAT // size)
    cpu = server.cpu()
    for _ in range(repeat):
        once(server, size)
    return (server.cpu() - cpu) / repeat


# -- what is done so many times --------------------------------------------------------------------


def _streams(server: Server, count: int) -> None:
    _download(server, [server.request("steps", n=TOKENS)] * count, TOKENS * count)


def _tokens(server: Server, count: int) -> None:
    _download(server, [server.request("ready", n=count)], count)


def _in_flight(server: Server, count: int) -> None:
    requests = [server.request("together", n=count)] * count
    client.download(server.port, requests)


def _cancels(server: Server, count: int) -> None:
    drop(server, count)
    time.sleep(SETTLE)  # what comes after the generator has stopped is a part of the cost


def _download(server: Server, requests: Sequence[bytes], tokens: int) -> None:
    done = client.download(server.port, requests)
    if done.tokens != tokens:
        raise ValueError(f"{server.peer.name} sent {done.tokens} tokens of {tokens}")


WHO = (BARE, OURS, SERVE)
KINDS = {
    "streams": ("steps", SIZES, _streams),
    "tokens": ("ready", LENGTHS, _tokens),
    "requests in flight": ("together", SIZES, _in_flight),
    "cancels": ("idle", SIZES, _cancels),
}
