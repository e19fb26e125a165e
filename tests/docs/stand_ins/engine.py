"""Somebody's own engine: a job runs until it has said everything, or is told to stop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import anyio

STEP = 0.1  # seconds
PREFILL = {"long": 10.0}  # seconds to the first word, by prompt
WORDS = 20

jobs: list[Job] = []


class Job:
    """Attributes: ``told_at`` is when it was told to stop, for the first time."""

    def __init__(self, prompt: str) -> None:
        self._prefill = PREFILL.get(prompt, STEP)
        self.told_at: float | None = None
        jobs.append(self)

    @property
    def stopped(self) -> bool:
        return self.told_at is not None

    async def words(self) -> AsyncIterator[str]:
        await anyio.sleep(self._prefill)
        for number in range(WORDS):
            yield f"{number} "
            await anyio.sleep(STEP)

    def lines(self) -> Iterator[str]:
        for number in range(WORDS):
            time.sleep(0.001)  # noqa: TID251 - blocks its thread, as a sync engine does
            yield f"{number}\n"

    def stop(self) -> None:
        if self.told_at is None:
            self.told_at = anyio.current_time()


def start(prompt: str) -> Job:
    return Job(prompt)
