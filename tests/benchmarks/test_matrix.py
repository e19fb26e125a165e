"""The fault matrix: no cell is empty, no bound exceeded, and its page is what its JSON says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.matrix import page
from benchmarks.matrix.__main__ import main
from benchmarks.matrix.cells import COLUMNS, PHASES, WAYS, Case, expected
from benchmarks.matrix.measure import Run
from benchmarks.matrix.results import Cell, Results, faults_of
from streamkit.testing import FAULT_PHASES, FAULT_WAYS, Fault

DOCS = Path(__file__).parents[2] / "docs" / "reference"
SERVERS = list(COLUMNS)


@pytest.fixture(scope="module")
def committed() -> Results:
    return Results.from_json(json.loads((DOCS / page.RESULTS).read_text()))


def test_the_committed_matrix_has_no_empty_cell_and_no_exceeded_bound(committed: Results) -> None:
    assert faults_of(committed, SERVERS, WAYS) == []
    assert len(committed.cells) == len(WAYS) * len(PHASES) * len(SERVERS)


def test_the_committed_cells_are_held_to_what_is_expected_of_them_now(committed: Results) -> None:
    differs = [
        f"{way}@{phase} on {server}"
        for (way, phase, server), cell in committed.cells.items()
        if cell.case != expected(way, phase, COLUMNS[server])
    ]

    assert not differs, "measure again: make matrix"


def test_the_page_is_made_of_the_json(committed: Results) -> None:
    assert page.generated(committed) in (DOCS / page.PAGE).read_text(), "make matrix"


def test_every_way_and_phase_of_the_kit_is_in_it() -> None:
    assert set(WAYS) == set(FAULT_WAYS)
    assert set(PHASES) == {*FAULT_PHASES, "prefill"}


def test_what_the_kit_has_not_is_impossible_with_a_reason() -> None:
    for way in WAYS:
        for phase in set(PHASES) - {"prefill"}:
            cases = [expected(way, phase, column) for column in COLUMNS.values()]
            assert all(case.reason for case in cases if case.kind == "impossible")
            try:
                Fault.parse(f"{way}@{phase}")
            except ValueError:
                assert {case.kind for case in cases} == {"impossible"}, (way, phase)


# -- what is wrong with a cell ---------------------------------------------------------------------

TOLD = Run(ms=4.0, proof="engine", since_ms=4.0, steps=1)
QUICK = Case("at once", "the connection's end", 0.1)
BOUND = Case("bounded", "`write_stall`", 1.0, "it stays")
UNSEEN = Case("unseen", "none", 4.0, "nothing says it")


@pytest.mark.parametrize(
    ("case", "runs", "fault"),
    [
        (QUICK, [TOLD], ""),
        (QUICK, [], "it was not measured"),
        (QUICK, [replace(TOLD, ms=101.0)], "101 ms, more than its bound of 0.1 s"),
        (QUICK, [TOLD, TOLD, replace(TOLD, ms=900.0)], ""),  # the median counts
        (BOUND, [replace(TOLD, ms=9_000.0, since_ms=1_900.0)], ""),
        (BOUND, [replace(TOLD, since_ms=2_100.0)], "2100 ms, more than its bound of 2 s"),
        (BOUND, [replace(TOLD, noticed=False)], "it was not noticed before its connection"),
        (UNSEEN, [replace(TOLD, noticed=False)], ""),
        (UNSEEN, [TOLD], "it was noticed, although it is said that the server cannot know"),
        (Case("impossible", reason="why"), [], ""),
        (Case("impossible"), [], "no reason is given"),
    ],
)
def test_a_cell_that_does_not_hold_what_it_says_is_a_fault(
    case: Case, runs: list[Run], fault: str
) -> None:
    results = Results(machine={})
    results.add(Cell("rst", "event", "serve h11", case, runs))
    [*found] = faults_of(results, ["serve h11"], ["rst"])

    assert len(found) == len(PHASES) - (not fault), "all others are empty, and said to be"
    said = next((text for text in found if "rst@event" in text), "")
    assert said.startswith(f"serve h11: rst@event: {fault}") if fault else not said


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.realtime
@pytest.mark.timeout(90)
def test_the_command_measures_and_writes_a_part_of_it(tmp_path: Path) -> None:
    (tmp_path / page.PAGE).write_text("<!-- generated -->\n<!-- end -->\n")
    status = main([f"--out={tmp_path}", "--server=serve h11", "--way=rst", "--runs=1"])

    assert status == 0
    results = Results.from_json(json.loads((tmp_path / page.RESULTS).read_text()))
    proofs = {phase: results.cells["rst", phase, "serve h11"].proofs for phase in PHASES}
    assert {proofs[phase] for phase in ("queued", "prefill", "byte", "event")} == {"e"}
    assert {proofs[phase] for phase in ("connecting", "headers", "after_end")} == {"k"}
    assert page.generated(results) in (tmp_path / page.PAGE).read_text()
