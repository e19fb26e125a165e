"""Goals become verdicts, figures become tables, plots and a page."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import output, plots, report
from benchmarks.bench import SHORT, Bench
from benchmarks.figures import NEVER, Figure, Summary
from benchmarks.goals import BOUNDS, GOALS, Bound
from benchmarks.measures import growth, start
from benchmarks.noise import Watch
from benchmarks.peers import BARE, OURS, PEERS

RATE = Figure("ready, one stream: rate", "tokens/s", more=True)


@pytest.fixture
def bench() -> Bench:
    bench = Bench(SHORT, Watch(tolerant=False), [])
    for turn, (ours, bare) in enumerate([(90.0, 100.0), (80.0, 100.0), (50.0, 100.0)]):
        bench.figures.add(RATE, OURS, str(turn), ours)
        bench.figures.add(RATE, BARE, str(turn), bare)
    return bench


def test_every_goal_has_a_bound():
    assert {bound.goal for bound in BOUNDS} <= set(GOALS)


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        (Bound(1, RATE.name, "×", 0.8, least=True), "met"),
        (Bound(1, RATE.name, "×", 0.81, least=True), "**missed**"),
        (Bound(1, RATE.name, "value", 80), "met"),
        (Bound(1, RATE.name, "value", 79), "**missed**"),
        (Bound(1, RATE.name, "more by", -20), "met"),
        (Bound(1, "something else", "value", 1), "not measured"),
    ],
)
def test_a_bound_is_met_or_missed_by_the_median(bench: Bench, bound: Bound, verdict: str):
    assert report.verdict(bound, bound.found(bench.figures))[-1] == verdict


def test_the_table_shows_every_contender_against_ours(bench: Bench):
    (table,) = report.figures(bench.figures)

    cells = [cell.strip() for cell in table.splitlines()[-1].split("|")]
    assert cells == ["", "bare ASGI", "100", "± 0%", "1.25 ×", ""]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0123, "0.0123"), (7, "7.00"), (31.27, "31.3"), (155_000.4, "155,000"), (NEVER, "never")],
)
def test_numbers_have_three_digits_that_count(value: float, shown: str):
    assert report.number(value) == shown


def test_a_page_keeps_what_people_wrote(bench: Bench, tmp_path: Path):
    page = tmp_path / "README.md"
    page.write_text("# Above\n<!-- generated -->\nstale\n<!-- end -->\nbelow\n")

    output.write(bench, 1.0, tmp_path)

    text = page.read_text()
    assert text.startswith("# Above\n")
    assert text.endswith("<!-- end -->\nbelow\n")
    assert "stale" not in text
    assert "| bare ASGI" in text
    assert "(tokens.svg)" in text
    assert (tmp_path / "tokens.svg").exists()
    assert len(json.loads((tmp_path / "results.json").read_text())["figures"]) == 2


def test_a_page_without_marks_is_left_alone():
    with pytest.raises(ValueError, match="marks"):
        output.replaced("# A page\n", "figures")


@pytest.mark.parametrize(
    "svg",
    [
        plots.bars("a < b", "ms", {"ours": Summary(1, 1, 2), "theirs": Summary(NEVER, 1, NEVER)}),
        plots.lines("growth", ("n", "s"), {"ours": [(1, 0.1), (100, 9.0)]}),
    ],
)
def test_a_plot_is_well_formed(svg: str):
    ET.fromstring(svg)


def test_growth_is_drawn_from_its_points(bench: Bench, tmp_path: Path):
    for size in (1, 10, 100):
        figure = Figure(growth.point_name("cancels", size), "ms", detail=True)
        bench.figures.add(figure, OURS, "0", 0.3 * size)

    output.write(bench, 1.0, tmp_path)

    assert "polyline" in (tmp_path / "growth-cancels.svg").read_text()
    assert "CPU at 10" not in (tmp_path / "README.md").read_text()


def test_every_bound_is_about_contenders_that_there_are():
    others = {bound.other for bound in BOUNDS if bound.kind != "value"} - {start.NOTHING}

    assert {bound.peer for bound in BOUNDS} | others <= set(PEERS)
