"""``python -m benchmarks.matrix``: measure the fault matrix, and write its page and its JSON.

Exit status 1 if a cell is empty, or took longer than its bound; then nothing is written.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from benchmarks.environments import ROOT
from benchmarks.matrix import page
from benchmarks.matrix.cells import COLUMNS, PHASES, WAYS, Column, expected
from benchmarks.matrix.measure import Wrong, measure
from benchmarks.matrix.results import Cell, Results, faults_of
from benchmarks.matrix.site import Certificate, running

FOLDER = ROOT / "docs" / "reference"
RUNS = 5  # of what is told at once
SLOW_RUNS = 3  # of what a bound ends; what nobody can notice is looked at once

SLOW = (
    ("stop_reading",),
    ("slow", "storm", "stay"),
    ("vanish",),
    tuple(
        way
        for way in WAYS
        if way not in {"stop_reading", "slow", "storm", "stay", "vanish", "tls_cut"}
    ),
)
QUICK = (tuple(way for way in WAYS if way != "tls_cut"), ("tls_cut",))

Key = tuple[str, str]


async def take(
    part: Part, runs: int, results: Results, folder: Path, certificate: Certificate
) -> None:
    """Start its server, and measure."""
    column = part.column
    async with running(column, folder, certificate if part.tls else None) as site:
        for way, phase in part.keys:
            case = expected(way, phase, column)
            count = 1 if case.kind == "unseen" else runs
            cell = Cell(way, phase, column.name, case)
            try:
                cell.runs += [await measure(site, way, phase, case) for _ in range(count)]
            except Wrong as error:
                cell.wrong = str(error)
            results.add(cell)
            print(f"  {column.name:18} {way}@{phase}: {cell}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Part:
    """Cells that are measured on one process, one after the other."""

    column: Column
    keys: list[Key]
    tls: bool = False


def parts(columns: Iterable[Column], ways: Sequence[str], *, slow: bool) -> Iterator[Part]:
    """The cells to be measured; those that wait for a bound are spread over several processes."""
    groups = SLOW if slow else QUICK
    for column in columns:
        for group in groups:
            keys = [(w, p) for w in ways if w in group for p in PHASES if _is(w, p, column, slow)]
            if keys:
                yield Part(column, keys, tls=group == ("tls_cut",))


def _is(way: str, phase: str, column: Column, slow: bool) -> bool:
    kind = expected(way, phase, column).kind
    return kind != "impossible" and (way == "tls_cut" or (kind != "at once") is slow)


async def run(columns: Iterable[Column], ways: Sequence[str], runs: tuple[int, int]) -> Results:
    """Measure all of it: the quick cells server by server, the slow ones on all side by side."""
    results, columns = Results(), list(columns)
    for column, way, phase in itertools.product(columns, ways, PHASES):
        if (case := expected(way, phase, column)).kind == "impossible":
            results.add(Cell(way, phase, column.name, case))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate = Certificate.make(folder)
        for part in parts(columns, ways, slow=False):
            await take(part, runs[0], results, folder, certificate)
        async with anyio.create_task_group() as tasks:
            for part in parts(columns, ways, slow=True):
                tasks.start_soon(take, part, runs[1], results, folder, certificate)
        # Others are on this machine, too: what came out wrong is measured once more, alone.
        for part in list(wrong(results)):
            results.again += len(part.keys)
            await take(part, runs[1], results, folder, certificate)
    return results


def wrong(results: Results) -> Iterator[Part]:
    """What has to be measured again."""
    for cell in results.cells.values():
        if cell.fault():
            key = (cell.way, cell.phase)
            yield Part(COLUMNS[cell.server], [key], tls=cell.way == "tls_cut")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrix", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of page and JSON")
    parser.add_argument("--server", action="append", choices=COLUMNS, help="only these")
    parser.add_argument("--way", action="append", choices=WAYS, help="only these")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each quick cell [{RUNS}]")
    given = parser.parse_args(arguments)
    columns = [COLUMNS[name] for name in given.server or COLUMNS]
    ways = given.way or WAYS
    began_at = time.monotonic()
    results = anyio.run(run, columns, ways, (given.runs, min(given.runs, SLOW_RUNS)))
    results.seconds = round(time.monotonic() - began_at)
    faults = faults_of(results, [column.name for column in columns], ways)
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return 1
    page.write(results, given.out)
    print(f"{len(results.cells)} cells in {results.seconds} s: {given.out / page.PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
