"""What the sources themselves saw, in memory that server and load generator share.

A row for each request, a number for each event: no server can be asked what its generator did
without disturbing it, several of them run it in another process, and some never end it.
``time.monotonic()`` is one clock for all processes of a machine.
"""

from __future__ import annotations

import mmap
import os
import time
from enum import IntEnum
from pathlib import Path

ROWS = 1 << 16
VARIABLE = "BENCH_BOOK"  # where a server finds its book


class Mark(IntEnum):
    """A column."""

    STARTED = 0  # when the source was entered
    STOPPED = 1  # when it was left, on whatever way
    MADE = 2  # tokens that it made


class Book:
    """The rows of one server."""

    def __init__(self, path: Path) -> None:
        size = ROWS * len(Mark) * 8
        with path.open("r+b" if path.exists() else "w+b") as file:
            if path.stat().st_size < size:
                file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self._cells = memoryview(self._map).cast("d")

    def stamp(self, row: int, mark: Mark) -> None:
        """It happens now."""
        self._cells[row * len(Mark) + mark] = time.monotonic()

    def count(self, row: int) -> None:
        """One token more."""
        self._cells[row * len(Mark) + Mark.MADE] += 1

    def read(self, row: int, mark: Mark) -> float:
        """Return what stands there; 0 is nothing."""
        return self._cells[row * len(Mark) + mark]

    def wait(self, rows: range, mark: Mark, limit: float) -> float:
        """Return the latest of their stamps; infinity where one is missing after ``limit`` s."""
        give_up = time.monotonic() + limit
        latest = 0.0
        for row in rows:
            while not (at := self.read(row, mark)):
                if time.monotonic() > give_up:
                    return float("inf")
                time.sleep(0.0003)
            latest = max(latest, at)
        return latest


def book_of_this_server() -> Book:
    """Return the book that the environment names."""
    return Book(Path(os.environ[VARIABLE]))
