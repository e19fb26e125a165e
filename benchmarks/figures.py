"""What was measured: a value for each figure, contender and round, and what follows from them."""

from __future__ import annotations

import itertools
import math
import operator
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

NEVER = math.inf


@dataclass(frozen=True)
class Summary:
    """The middle of several rounds, and how far they lie apart."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """The half width, as a share of the median."""
        if not self.median or math.isinf(self.high):
            return 0.0
        return (self.high - self.low) / 2 / abs(self.median)


def summary_of(values: Iterable[float]) -> Summary:
    """Median and quartiles; of three values or fewer, the ends."""
    ordered = sorted(values)
    if len(ordered) < 4 or math.isinf(ordered[-1]):
        return Summary(statistics.median(ordered), ordered[0], ordered[-1])
    low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return Summary(median, low, high)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below that share of all: an observed one, never a mean."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of cost over size, both logarithmic, by least squares: 1 is a line.

    Raises:
        ValueError: There are not two sizes.
    """
    xs = [math.log(size) for size, _ in points]
    ys = [math.log(cost) for _, cost in points]
    return statistics.linear_regression(xs, ys).slope


@dataclass(frozen=True)
class Figure:
    """Something that can be measured.

    Attributes:
        name: Unique; ``measure: what``.
        unit: As it is printed.
        more: Whether more is better.
        detail: Whether it is a point of a curve, which is plotted and not a table of its own.
    """

    name: str
    unit: str
    more: bool = False
    detail: bool = False


class Figures:
    """All that one run of the suite measured."""

    def __init__(self) -> None:
        self.known: dict[str, Figure] = {}
        self.values: dict[tuple[str, str], dict[str, float]] = {}

    def add(self, figure: Figure, peer: str, turn: str, value: float) -> None:
        """Note a value; a turn is a round in which contenders were measured beside each other."""
        self.known[figure.name] = figure
        self.values.setdefault((figure.name, peer), {})[turn] = value

    def peers(self, figure: str) -> list[str]:
        """Who has values for it, in the order in which they came."""
        return [peer for name, peer in self.values if name == figure]

    def of(self, figure: str, peer: str) -> Summary | None:
        """The summary of all rounds, or None."""
        values = self.values.get((figure, peer))
        return summary_of(values.values()) if values else None

    def ratio(self, figure: str, peer: str, other: str) -> Summary | None:
        """How many times ``other`` ``peer`` is: in each turn that both were in, then summarised."""
        return _summary_of_pairs(_divide, self._pairs(figure, peer, other))

    def difference(self, figure: str, peer: str, other: str) -> Summary | None:
        """How much more ``peer`` has than ``other``, turn by turn."""
        return _summary_of_pairs(operator.sub, self._pairs(figure, peer, other))

    def _pairs(self, figure: str, peer: str, other: str) -> list[tuple[float, float]]:
        mine = self.values.get((figure, peer), {})
        theirs = self.values.get((figure, other), {})
        return [(mine[turn], theirs[turn]) for turn in mine if turn in theirs]


def _summary_of_pairs(
    relate: Callable[[float, float], float], pairs: list[tuple[float, float]]
) -> Summary | None:
    return summary_of(itertools.starmap(relate, pairs)) if pairs else None


def _divide(a: float, b: float) -> float:
    if math.isinf(b):
        return 1.0 if math.isinf(a) else 0.0
    return a / b if b else NEVER
