"""Whether the machine is quiet enough to compare anything on it.

A loop of fixed work spins on every core at once. On a quiet machine each repetition takes the same
time, and the wall clock runs no faster than the loop's own CPU time; a neighbour shows in both.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from dataclasses import dataclass

LIMIT = 0.10
REPEATS = 15
SPIN = 400_000  # turns; some 15 ms


class TooNoisy(Exception):
    """The message says how noisy."""


@dataclass(frozen=True)
class Noise:
    """How much of the time something else took, and how even the rest was.

    Attributes:
        stolen: Share of the wall time in which the spinning loops did not run.
        unevenness: How much longer the slow repetitions took than the middle one.
        load: The load average over a minute; what ran just before counts in it, so it only tells.
    """

    stolen: float
    unevenness: float
    load: float

    @property
    def worst(self) -> float:
        """The greater of the two shares."""
        return max(self.stolen, self.unevenness)

    def __str__(self) -> str:
        return (
            f"{self.stolen:.0%} of the cores taken by others, repetitions uneven by "
            f"{self.unevenness:.0%}, load average {self.load:.1f}"
        )


def measure_noise() -> Noise:
    """Spin for about a third of a second."""
    cores = os.cpu_count() or 1
    context = multiprocessing.get_context("fork")
    with context.Pool(cores) as pool:
        runs = pool.map(_spin, [REPEATS] * cores, chunksize=1)
    stolen = max(1 - cpu / wall for _, cpu, wall in runs)
    uneven = [
        statistics.quantiles(times, n=10)[-1] / statistics.median(times) for times, *_ in runs
    ]
    return Noise(max(0.0, stolen), max(uneven) - 1, os.getloadavg()[0])


def _spin(repeats: int) -> tuple[list[float], float, float]:
    times: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        began = time.perf_counter()
        turns = SPIN
        while turns:
            turns -= 1
        times.append(time.perf_counter() - began)
    return times, time.process_time() - cpu, time.perf_counter() - wall


class Watch:
    """Looks before each round, keeps what it saw, and stops the comparison when it is too much."""

    def __init__(self, *, tolerant: bool, limit: float = LIMIT, measure=measure_noise) -> None:
        self.seen: list[Noise] = []
        self._tolerant = tolerant
        self._limit = limit
        self._measure = measure

    @property
    def noisy(self) -> bool:
        """Whether a quiet machine would have given other figures."""
        return any(noise.worst > self._limit for noise in self.seen)

    def look(self) -> None:
        """Look once more, and a second time before it says no: one hiccup is no neighbour.

        Raises:
            TooNoisy: And nobody said ``--even-if-noisy``.
        """
        noise = min(self._measure(), self._measure(), key=lambda noise: noise.worst)
        self.seen.append(noise)
        if noise.worst > self._limit and not self._tolerant:
            raise TooNoisy(f"{noise}; the limit is {self._limit:.0%}")
