"""Sync generators in lockstep with their reader, so that two threads always do the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp, Message

from streamkit import cancellable
from streamkit.asgi import EventStream
from streamkit.streams._workers import close_idle_threads

from . import apps, budgets
from .counting import Counter, Counts
from .wire import Wire

two_threads = pytest.mark.skipif(
    budgets.THIS == "3.12", reason="its tracer crashes where a second thread runs (seen in 3.12.1)"
)


class LockstepLoop(asyncio.SelectorEventLoop):
    """Knows when the worker threads have gone as far as they may: streamkit tells its loop."""

    def __init__(self) -> None:
        super().__init__()
        self._working = 0
        self._guard = threading.Lock()
        self._busy = threading.Lock()  # taken while a thread works

    def thread_started(self) -> None:
        with self._guard:
            self._working += 1
            if self._working == 1:
                self._busy.acquire()

    def thread_parked(self) -> None:
        with self._guard:
            self._working -= 1
            if not self._working:
                self._busy.release()

    def wait_parked(self) -> None:
        """Block the loop until no thread works."""
        with self._busy:
            pass


class SlowWire(Wire):
    """Takes the next chunk when the generator is as far ahead as it may be."""

    def __init__(self, app: ASGIApp, loop: LockstepLoop) -> None:
        super().__init__(app)
        self._loop = loop

    async def send(self, message: Message) -> None:
        self._loop.wait_parked()
        await super().send(message)


def sync_tokens(count: int) -> Iterator[str]:
    for _ in range(count):
        yield apps.TOKEN


def cost_of_sync_token(units: int = 2048) -> tuple[Counts, Counts]:
    """What a token costs the loop's thread, and the generator's own."""
    generate = cancellable(sync_tokens)

    async def counted(count: int) -> tuple[Counts, Counts]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, LockstepLoop)
        reader, worker = Counter(), Counter()
        close_idle_threads()  # only a new thread is counted
        app = apps.responding(lambda: EventStream(generate(count)))
        wire = SlowWire(app, loop)
        with worker.in_new_threads(), reader():
            await wire.run()
        close_idle_threads()  # waits for its last line
        assert wire.size > count * len(apps.TOKEN)
        return reader.counts, worker.counts

    async def main() -> tuple[Counts, Counts]:
        await counted(2 * units)
        once = await counted(units)
        twice = await counted(2 * units)
        loop_side, thread_side = ((b - a) / units for a, b in zip(once, twice, strict=True))
        return loop_side, thread_side

    with asyncio.Runner(loop_factory=LockstepLoop) as runner:
        return runner.run(main())
