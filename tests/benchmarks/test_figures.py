"""What is made of measured values: medians, spreads, ratios, percentiles, exponents."""

import math

import pytest

from benchmarks.figures import NEVER, Figure, Figures, exponent, percentile, summary_of

FIGURE = Figure("rate", "tokens/s", more=True)


def test_a_summary_is_the_median_and_the_quartiles():
    summary = summary_of([5, 1, 3, 2, 4])

    assert (summary.low, summary.median, summary.high) == (2, 3, 4)
    assert summary.spread == pytest.approx(1 / 3)


def test_a_summary_of_few_values_shows_their_ends():
    summary = summary_of([3, 1])

    assert (summary.low, summary.median, summary.high) == (1, 2, 3)


def test_what_never_happened_in_most_rounds_never_happens():
    assert summary_of([1, NEVER, NEVER]).median == NEVER
    assert summary_of([1, 1, 1, 1, NEVER]).median == 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: int):
    assert percentile(range(100, 0, -1), share) == expected


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_is_found(power: float):
    points = [(size, 7.0 * size**power) for size in (1, 10, 100, 1_000)]

    assert exponent(points) == pytest.approx(power)


def test_a_ratio_compares_values_of_the_same_turn_only():
    figures = Figures()
    for turn, ours, theirs in (("0", 10, 5), ("1", 40, 10), ("2", 90, 30)):
        figures.add(FIGURE, "ours", turn, ours)
        figures.add(FIGURE, "theirs", turn, theirs)
    figures.add(FIGURE, "ours", "3", 1_000_000)

    ratio = figures.ratio("rate", "ours", "theirs")

    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == (2, 3, 4)
    assert figures.ratio("rate", "ours", "nobody") is None


def test_a_ratio_to_what_never_stops_is_nothing():
    figures = Figures()
    figures.add(FIGURE, "ours", "0", 1.0)
    figures.add(FIGURE, "theirs", "0", NEVER)

    ratio = figures.ratio("rate", "ours", "theirs")
    inverse = figures.ratio("rate", "theirs", "ours")

    assert ratio is not None
    assert inverse is not None
    assert ratio.median == 0
    assert math.isinf(inverse.median)
