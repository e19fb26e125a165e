"""Streams that are open and silent: what they keep, and what they do while nothing happens."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import ASGIApp

from streamkit.testing import VirtualTimeLoop

from .counting import Counter, Counts
from .scenarios import Scenario
from .wire import Wire

MINUTE = 60.0  # virtual seconds


def idle(app: ASGIApp) -> Scenario:
    """So many streams that are open for a minute, each after its first chunk."""

    async def scenario(counter: Counter, count: int) -> None:
        async with _open(app, count):
            with counter():
                await anyio.sleep(MINUTE)

    return scenario


def cost_of_the_process(app: ASGIApp) -> Counts:
    """What a minute costs the process, whatever the number of streams."""

    async def main() -> Counts:
        counts: list[Counts] = []
        for streams in (2, 1, 2):  # the first fills caches
            counter = Counter()
            await idle(app)(counter, streams)
            counts.append(counter.counts)
        _, one, two = counts
        return one - (two - one)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


def kib_per_stream(app: ASGIApp, streams: int = 64) -> float:
    """KiB that one more open stream keeps, with its server's side."""

    async def kept(count: int) -> int:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        async with _open(app, count):
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before

    async def main() -> float:
        await kept(2 * streams)
        once = await kept(streams)
        return (await kept(2 * streams) - once) / streams / 1024

    tracemalloc.start()
    try:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(main())
    finally:
        tracemalloc.stop()


@asynccontextmanager
async def _open(app: ASGIApp, count: int) -> AsyncIterator[None]:
    wires = [Wire(app) for _ in range(count)]
    async with anyio.create_task_group() as server:
        for wire in wires:
            server.start_soon(wire.run)
        for wire in wires:
            await wire.wait_chunk(1)
        await anyio.sleep(0.125)  # exact in binary, as the heartbeat needs it
        yield
        server.cancel_scope.cancel()
