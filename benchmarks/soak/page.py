"""What a soak has shown: for the terminal, as JSON, and as the generated part of its page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import installed
from benchmarks.output import replaced
from benchmarks.soak.judge import Check, Evidence, slope

PAGE: Final = "soak.md"
RESULTS: Final = "soak.json"


@dataclass
class Report:
    """A run and what is said about it."""

    evidence: Evidence
    checks: list[Check]
    again: str
    seconds: int

    @property
    def good(self) -> bool:
        return all(check.good for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        evidence = self.evidence
        return {
            "machine": installed("uvicorn", "httptools", "uvloop", "starlette", "anyio"),
            "again": self.again,
            "seconds": self.seconds,
            "clients": evidence.crowd.done,
            "visits": evidence.crowd.visits,
            "at_once": evidence.crowd.most,
            "slope": round(slope(evidence.samples), 2),
            "checks": [asdict(check) for check in self.checks],
            "samples": [
                [round(each.at, 1), round(each.rss), each.fds, each.threads, each.ended]
                for each in evidence.samples[:: max(1, len(evidence.samples) // 200)]
            ],
        }


def as_text(report: Report) -> Iterator[str]:
    """For the terminal."""
    for check in report.checks:
        yield f"{'good' if check.good else 'BAD ':5}{check.name:18}{check.detail}"
    crowd = report.evidence.crowd
    yield (
        f"{crowd.done:,} clients, {crowd.visits:,} visits, {crowd.most:,} at once, in "
        f"{report.seconds} s: {'good' if report.good else 'NOT GOOD'}"
    )
    if not report.good:
        yield f"again: {report.again}"


def write(report: Report, folder: Path) -> None:
    """Write the JSON, and the generated part of the page."""
    results = report.as_json()
    (folder / RESULTS).write_text(json.dumps(results, ensure_ascii=False) + "\n")
    page = folder / PAGE
    text = page.read_text() if page.exists() else "<!-- generated -->\n<!-- end -->\n"
    page.write_text(replaced(text, generated(results)))


def generated(results: dict[str, Any]) -> str:
    """What stands between the marks of the page."""
    on = "; ".join(f"{name} {value}" for name, value in results["machine"].items())
    rows = [
        f"| {check['name']} | {'good' if check['good'] else '**bad**'} | {check['detail']} |"
        for check in results["checks"]
    ]
    came = (
        f"{results['clients']:,} clients who came {results['visits']:,} times, up to "
        f"{results['at_once']:,} at once, in {results['seconds']} s (`{results['again']}`):\n"
    )
    machine_line = f"On a machine that others shared: {on}."
    return "\n".join([came, "| check | | |", "|---|---|---|", *rows, "", machine_line])
