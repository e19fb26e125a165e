"""What all peers serve: generators and coroutines of plain Python that note what happens to them.

Each takes the row of the book and a number of tokens. Those whose cost is measured take the token
as well, so that a framework without framing of its own can be given framed ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager

from benchmarks.apps.tokens import TOKEN
from benchmarks.book import Mark, book_of_this_server

STEP = 0.02  # seconds between the tokens of who is left; 50 a second is a usual speed
ENGINE_STEP = 0.01
BURST = 8
LONG = 3_600.0
book = book_of_this_server()


@contextmanager
def noted(row: int) -> Iterator[None]:
    book.stamp(row, Mark.STARTED)
    try:
        yield
    finally:
        book.stamp(row, Mark.STOPPED)


# -- what a token costs ----------------------------------------------------------------------------


async def ready(row: int, n: int, token: str = TOKEN) -> AsyncGenerator[str]:
    """Never waits: the limit of what can be sent."""
    for _ in range(n):
        yield token


def ready_sync(row: int, n: int, token: str = TOKEN) -> Generator[str]:
    for _ in range(n):
        yield token


class _Engine:
    """Makes tokens for all streams at once, step by step, as an engine's output loop does."""

    def __init__(self) -> None:
        self.streams: dict[asyncio.Queue[str], list[str]] = {}

    async def generate(self, n: int, token: str, burst: int) -> AsyncGenerator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        if not self.streams:
            asyncio.get_running_loop().call_later(ENGINE_STEP, self._step)
        self.streams[queue] = [token] * burst
        try:
            for _ in range(n):
                yield await queue.get()
        finally:
            del self.streams[queue]

    def _step(self) -> None:
        for queue, burst in self.streams.items():
            for token in burst:
                queue.put_nowait(token)
        if self.streams:
            asyncio.get_running_loop().call_later(ENGINE_STEP, self._step)


_engine = _Engine()


def steps(row: int, n: int, token: str = TOKEN) -> AsyncGenerator[str]:
    """One token in each step of the engine."""
    return _engine.generate(n, token, 1)


def bursts(row: int, n: int, token: str = TOKEN) -> AsyncGenerator[str]:
    """Several tokens in each step: speculation, or steps that are reported together."""
    return _engine.generate(n, token, BURST)


# -- who is left -----------------------------------------------------------------------------------


async def decode(row: int, n: int, token: str = TOKEN) -> AsyncGenerator[str]:
    """A token now and then."""
    with noted(row):
        for _ in range(n):
            book.count(row)
            yield token
            await asyncio.sleep(STEP)


async def prefill(row: int, n: int, token: str = TOKEN) -> AsyncGenerator[str]:
    """No token for a long time."""
    with noted(row):
        await asyncio.sleep(LONG)
        yield token


_nobody_leaves = asyncio.Semaphore(0)


async def queued(row: int, n: int, token: str = TOKEN) -> AsyncGenerator[str]:
    """Waits for a slot, and all are taken."""
    with noted(row):
        async with _nobody_leaves:
            yield token


async def idle(row: int, n: int, token: str = TOKEN) -> AsyncGenerator[str]:
    """One token, then none for a long time."""
    with noted(row):
        yield token
        await asyncio.sleep(LONG)


def decode_sync(row: int, n: int, token: str = TOKEN) -> Generator[str]:
    """A token each millisecond, on a thread."""
    with noted(row):
        for _ in range(n):
            book.count(row)
            yield token
            time.sleep(0.001)


async def unary(row: int, n: int) -> str:
    """An answer that takes long."""
    with noted(row):
        await asyncio.sleep(LONG)
        return TOKEN


async def call(row: int, n: int) -> str:
    """An answer that is ready: what is measured is everything around it."""
    return TOKEN


class _Gate:
    """Opens when so many wait before it."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Event] = []

    async def wait_for(self, n: int) -> None:
        event = asyncio.Event()
        self._waiting.append(event)
        if len(self._waiting) == n:
            for waiting in self._waiting:
                waiting.set()
            self._waiting = []
        await event.wait()


_gate = _Gate()


async def together(row: int, n: int) -> str:
    """Waits until so many requests are in flight; then all are answered."""
    await _gate.wait_for(n)
    return TOKEN


STREAMS: dict[str, Callable[..., AsyncGenerator[str]]] = {
    make.__name__: make for make in (ready, steps, bursts, decode, prefill, queued, idle)
}
SYNC_STREAMS: dict[str, Callable[..., Generator[str]]] = {
    make.__name__: make for make in (ready_sync, decode_sync)
}
CALLS: dict[str, Callable[[int, int], Awaitable[str]]] = {
    make.__name__: make for make in (unary, call, together)
}
