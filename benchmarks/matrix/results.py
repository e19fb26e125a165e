"""What was measured, cell by cell; what is wrong with it; and the same as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.machine import installed
from benchmarks.matrix.cells import AT_ONCE, LATE, PHASES, SETTINGS, Case
from benchmarks.matrix.measure import Run

PACKAGES = ("uvicorn", "h11", "httptools", "uvloop", "hypercorn", "h2", "granian", "starlette")


@dataclass
class Cell:
    """One cell of the matrix."""

    way: str
    phase: str
    server: str
    case: Case
    runs: list[Run] = field(default_factory=list[Run])
    wrong: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.way, self.phase, self.server

    @property
    def ms(self) -> float:
        """Median of what is held against the bound."""
        values = [r.since_ms if self.case.kind == "bounded" else r.ms for r in self.runs]
        return statistics.median(values)

    @property
    def proofs(self) -> str:
        """Who said so, in the order of the alphabet."""
        return "".join(sorted({run.proof[0] for run in self.runs}))

    def fault(self) -> str:
        """What is wrong with it; empty: nothing."""
        if self.wrong:
            return self.wrong
        if self.case.kind == "impossible":
            return "" if self.case.reason else "no reason is given"
        if not self.runs:
            return "it was not measured"
        bound = self.case.seconds + LATE if self.case.kind == "bounded" else AT_ONCE
        if self.case.kind == "unseen" and any(run.noticed for run in self.runs):
            return "it was noticed, although it is said that the server cannot know"
        if self.case.kind != "unseen" and not all(run.noticed for run in self.runs):
            return f"it was not noticed before its connection had ended (bound {bound:g} s)"
        if self.ms > bound * 1000:
            return f"{self.ms:.0f} ms, more than its bound of {bound:g} s"
        return ""

    def __str__(self) -> str:
        if fault := self.fault():
            return f"WRONG {fault}"
        return f"{self.ms:.1f} ms ({self.proofs})" if self.runs else self.case.kind


@dataclass
class Results:
    """All cells, and what they were measured on.

    Attributes:
        again: Cells that came out wrong and were measured once more.
    """

    cells: dict[tuple[str, str, str], Cell] = field(default_factory=dict)
    seconds: int = 0
    again: int = 0
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)
    machine: Mapping[str, str] = field(default_factory=lambda: installed(*PACKAGES))

    def add(self, cell: Cell) -> None:
        self.cells[cell.key] = cell

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "seconds": self.seconds,
            "again": self.again,
            "cells": [asdict(cell) for _, cell in sorted(self.cells.items())],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Results:
        about = {name: value[name] for name in ("seconds", "again", "settings", "machine")}
        results = cls(**about)
        for each in value["cells"]:
            case, runs = Case(**each.pop("case")), [Run(**run) for run in each.pop("runs")]
            results.add(Cell(case=case, runs=runs, **each))
        return results


def faults_of(results: Results, servers: Sequence[str], ways: Sequence[str]) -> list[str]:
    """Cells that are empty, or not what they say."""
    found: list[str] = []
    for key in ((way, phase, server) for way in ways for phase in PHASES for server in servers):
        cell = results.cells.get(key)
        fault = "it is empty" if cell is None else cell.fault()
        if fault:
            found.append(f"{key[2]}: {key[0]}@{key[1]}: {fault}")
    return found
