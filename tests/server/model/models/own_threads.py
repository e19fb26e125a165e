"""Models whose work runs on threads that they start themselves, as most published ones do."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio

from streamkit import current_token


class Engine:
    """Makes a token every millisecond, until it is let go; nothing else of it ends."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.ended = threading.Event()
        self.asks = False

    def generate(self, put: Callable[[str | None], object]) -> None:
        try:
            while not self.let_go.wait(0.001) and not (self.asks and current_token().cancelled):
                put("token ")
            put(None)
        finally:
            self.ended.set()


class Streams(Engine):
    """A thread generates, and a generator hands on what it streams."""

    def predict(self, inputs: Any) -> Iterator[str]:
        tokens: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.start(tokens.put)

        def handed_on() -> Iterator[str]:
            while (token := tokens.get()) is not None:
                yield token

        return handed_on()

    def start(self, put: Callable[[str | None], object]) -> None:
        threading.Thread(target=self.generate, kwargs={"put": put}).start()


class StreamsFromAPool(Streams):
    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1)

    def start(self, put: Callable[[str | None], object]) -> None:
        self._pool.submit(self.generate, put)


class Subclass(threading.Thread):
    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self._work = work

    def run(self) -> None:
        self._work()


class StreamsFromASubclass(Streams):
    def start(self, put: Callable[[str | None], object]) -> None:
        Subclass(lambda: self.generate(put)).start()


class Serves(Engine):
    """Its first request starts what serves all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0

    async def predict(self, inputs: float) -> str:
        if not self.started:
            self.started += 1
            threading.Thread(target=self.generate, args=(lambda _: None,), daemon=True).start()
        await anyio.sleep(inputs)
        return "done"


class Breaks(Streams):
    """Fails after it has started its thread."""

    def predict(self, inputs: Any) -> Iterator[str]:
        super().predict(inputs)
        raise ZeroDivisionError
