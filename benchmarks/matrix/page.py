"""The matrix as a page: one table for each way to leave, and a note for each reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.matrix.cells import COLUMNS, LATE, PATIENCE, PHASES, WAYS, Case
from benchmarks.matrix.results import Cell, Results
from benchmarks.output import replaced
from streamkit.testing import FAULT_WAYS

PAGE: Final = "fault-matrix.md"
RESULTS: Final = "fault-matrix.json"


def write(results: Results, folder: Path) -> None:
    """Write the JSON, and the generated part of the page."""
    page = folder / PAGE
    text = page.read_text() if page.exists() else "<!-- generated -->\n<!-- end -->\n"
    page.write_text(replaced(text, generated(results)))
    lines = json.dumps(results.as_json(), ensure_ascii=False).replace('{"way"', '\n{"way"')
    (folder / RESULTS).write_text(lines + "\n")


def generated(results: Results) -> str:
    """What stands between the marks of the page."""
    notes: dict[str, int] = {}
    tables = [line for way in WAYS for line in _table(results, way, notes)]
    return "\n".join([*_counts(results), *tables, *_notes(notes), *_measured(results)]).rstrip()


def _table(results: Results, way: str, notes: dict[str, int]) -> Iterator[str]:
    servers = [name for name in COLUMNS if any(key[2] == name for key in results.cells)]
    rows = [[results.cells.get((way, phase, server)) for server in servers] for phase in PHASES]
    if not any(cell for row in rows for cell in row):
        return
    yield f"### `{way}`: {FAULT_WAYS[way].meaning}\n"
    yield f"| | {' | '.join(servers)} |"
    yield "|---" * (len(servers) + 1) + "|"
    for phase, row in zip(PHASES, rows, strict=True):
        yield f"| `{phase}` | {' | '.join(_shown(cell, notes) for cell in row)} |"
    yield ""


def _shown(cell: Cell | None, notes: dict[str, int]) -> str:
    if cell is None:
        return ""  # a part of the matrix was asked for
    if cell.case.kind == "at once":
        return f"{cell.ms:.1f} {cell.proofs}"
    number = notes.setdefault(note_of(cell.case), len(notes) + 1)
    if cell.case.kind == "impossible":
        return f"– [{number}]"
    if cell.case.kind == "unseen":
        return f"no [{number}]; {cell.ms:.1f} {cell.proofs}"
    return f"**{cell.ms / 1000:.2f} s** {cell.proofs} [{number}]"


def note_of(case: Case) -> str:
    """What the number behind a cell stands for."""
    if case.kind == "impossible":
        return f"There is no such thing: {case.reason}."
    if case.kind == "unseen":
        return f"It cannot know: {case.reason}. Bound: {case.bound}."
    return f"Bound: {case.bound}, here {case.seconds:g} s: {case.reason}."


def _notes(notes: dict[str, int]) -> Iterator[str]:
    yield "### Notes\n"
    for note, number in notes.items():
        yield f"{number}. {note}"
    yield ""


def _counts(results: Results) -> Iterator[str]:
    kinds = [cell.case.kind for cell in results.cells.values()]
    runs = sum(len(cell.runs) for cell in results.cells.values())
    told = [c for c in results.cells.values() if c.case.kind == "at once" and "e" in c.proofs]
    slowest = max((cell.ms for cell in told), default=0.0)
    yield (
        f"{len(kinds)} cells: in {kinds.count('at once')} the server is told at once, in "
        f"{kinds.count('bounded')} something else bounds it, in {kinds.count('unseen')} the server "
        f"cannot know, and {kinds.count('impossible')} are impossible. {runs:,} runs."
    )
    yield (
        f"Of the {len(told)} cells in which it is told at once and the engine was at work, the "
        f"slowest median is {slowest:.1f} ms, one step of the engine (5 ms) included.\n"
    )


def _measured(results: Results) -> Iterator[str]:
    settings = ", ".join(f"`{name}` {value} s" for name, value in results.settings.items())
    on = "; ".join(f"{name} {value}" for name, value in results.machine.items())
    yield "### How it was measured\n"
    yield (
        f"On a machine that others shared, in {results.seconds} s: {on}.\n\n"
        f"Settings, short enough to be waited for: {settings}. A bound may be missed by "
        f"{LATE:g} s (a look at the connection each 0.5 s, and a busy machine) before the command "
        f"fails; one that nobody can notice is watched for {PATIENCE:g} s. "
        f"Cells that came out wrong beside the others and were measured once more, alone: "
        f"{results.again}."
    )
