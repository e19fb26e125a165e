"""How long each server takes to tell that the client of a websocket left, by how it left.

``python benchmarks/websockets_by_server.py [SERVER …]`` prints the table of
``docs/reference/websockets.md``: milliseconds from the client's system call to the engine being
told. Client, server and app are those of ``tests/asgi/test_socket_servers.py``, in one process.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
from itertools import product
from typing import Any

from streamkit._core import now
from tests.asgi.test_socket_servers import SERVERS, WAYS, Scene, come, running

RUNS = 30  # of what takes a millisecond; the rest is done three times
SLOW = 50.0  # milliseconds; what takes longer
PHASES = ["awaits", "parked", "blocked"]


class Timed(Scene):
    """Notes when the engine is told."""

    told_at = 0.0

    def told(self, cancellation: Any) -> None:
        self.told_at = now()
        super().told(cancellation)


async def once(scene: Timed, url: str, phase: str, way: Any) -> float:
    client = await come(f"{url}/{phase}")
    if phase == "blocked":
        client.transport.pause_reading()
        await scene.wait_blocked()
    left_at = now()
    way(client)
    await scene.check_idle()
    client.transport.abort()
    return (scene.told_at - left_at) * 1000


async def measure(kind: str) -> None:
    scene = Timed()
    async with running(kind, scene.app) as (url, _):
        for phase, way in product(PHASES, WAYS):
            times = [await once(scene, url, phase, way) for _ in range(3)]
            if max(times) < SLOW:
                times = [await once(scene, url, phase, way) for _ in range(RUNS)]
            what = f"{kind:18} {phase:8} {way.__name__:11}"
            median, worst = statistics.median(times), max(times)
            print(f"{what} {median:8.2f} ms, at most {worst:8.2f}: {scene.reasons[-1]}", flush=True)


if __name__ == "__main__":
    logging.disable()  # what the oldest implementation says of itself
    for name in sys.argv[1:] or SERVERS:
        asyncio.run(measure(name))
