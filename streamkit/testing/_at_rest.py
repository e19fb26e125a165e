"""Assertions for the end of a test: the engine is idle, and no task or thread is left."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeAlias

import anyio

from streamkit._core import now
from streamkit.engines import EngineStatistics
from streamkit.streams._workers import close_idle_threads

from ._waiting import describe_tasks, describe_threads

LOOK_EVERY: Final = 0.01  # seconds
# Threads of pools, which wait for the next piece of work.
_POOLS: Final = ("AnyIO worker thread", "asyncio_", "ThreadPoolExecutor")


class HasStatistics(Protocol):
    """An engine, as far as it says what it does."""

    def statistics(self) -> EngineStatistics:
        """What it does now."""
        ...


InFlight: TypeAlias = Callable[[], float | Awaitable[float]]


async def assert_engine_idle(source: HasStatistics | InFlight, *, within: float = 5.0) -> None:
    """Wait until nothing runs or waits any more.

    Args:
        source: An engine with ``statistics()``, or what gives the number of requests that run or
            wait; it may be async, and is asked again and again.
        within: Seconds.

    Raises:
        AssertionError: Something still does.

    Cancellation:
        Stops waiting.
    """
    until = now() + within
    while (left := await _in_flight(source)) > 0:
        if now() >= until:
            raise AssertionError(f"{left:g} requests still run or wait after {within:g} s")
        await anyio.sleep(LOOK_EVERY)


@asynccontextmanager
async def assert_nothing_left(*, within: float = 2.0) -> AsyncGenerator[None]:
    """Assert that no task and no thread that began in the block is left after it.

    Threads of pools do not count.

    Args:
        within: Seconds that they may take to end.

    Raises:
        AssertionError: Some are left; it says where each of them waits.
    """
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    yield
    until = now() + within
    while left := _left_since(tasks, threads):
        if now() >= until:
            raise AssertionError(f"left after {within:g} s:\n  " + "\n  ".join(left))
        await anyio.sleep(LOOK_EVERY)


async def _in_flight(source: HasStatistics | InFlight) -> float:
    if callable(source):
        count = source()
        return await count if inspect.isawaitable(count) else count
    books = source.statistics()
    return books.running + books.queued


def _left_since(tasks: set[asyncio.Task[object]], threads: set[threading.Thread]) -> list[str]:
    close_idle_threads()
    new = {task for task in asyncio.all_tasks() - tasks if task is not asyncio.current_task()}
    names = {
        thread.name
        for thread in set(threading.enumerate()) - threads
        if not thread.name.startswith(_POOLS)
    }
    lines = [line for line in describe_threads() if line.partition(": ")[0] in names]
    return [*describe_tasks(new), *lines]
