"""Model classes with one slot that remember in which order they were called."""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio

WORK = 0.002  # seconds between two chunks
CHUNKS = 3


class Ordered:
    def __init__(self) -> None:
        self.order: list[int] = []
        self.running = 0
        self.most = 0

    def begin(self, number: int) -> None:
        self.order.append(number)
        self.running += 1
        self.most = max(self.most, self.running)

    async def completions(self) -> Any:
        """What it remembers."""
        return {"order": self.order, "running": self.running, "most": self.most}


class AsyncGenerators(Ordered):
    async def predict(self, inputs: Any) -> AsyncIterator[str]:
        self.begin(inputs)
        try:
            for _ in range(CHUNKS):
                await anyio.sleep(WORK)
                yield f"{inputs} "
        finally:
            self.running -= 1


class Generators(Ordered):
    def predict(self, inputs: Any) -> Iterator[str]:
        self.begin(inputs)
        try:
            for _ in range(CHUNKS):
                time.sleep(WORK)  # noqa: TID251 - as a model would
                yield f"{inputs} "
        finally:
            self.running -= 1
