"""What the conformance kit saw of each engine, kept for the docs: ``REPORTS=write`` writes it."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import anyio.to_thread

from streamkit import __version__
from streamkit.testing import EngineReport, Trial

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "engine-reports"
PLACES = {"queue": ("queued",), "prefill": ("prefill",), "decode": ("first token", "decode")}


async def keep(report: EngineReport, name: str, *packages: str, stub: bool = False) -> None:
    """Write it, if that was asked for.

    Args:
        report: What the kit saw.
        name: What ``--engine`` calls the engine.
        packages: Whose versions it was seen with.
        stub: Whether it was seen on a stand-in for the engine.
    """
    if os.environ.get("REPORTS") == "write":
        await anyio.to_thread.run_sync(write, report, name, packages, stub)


def write(report: EngineReport, name: str, packages: tuple[str, ...], stub: bool) -> None:
    text = json.dumps(as_data(report, packages, stub=stub), indent=2, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(f"{text}\n")


def as_data(report: EngineReport, packages: tuple[str, ...], *, stub: bool) -> dict[str, Any]:
    everything = report.as_json()
    kept = ("passed", "capabilities", "cancels", "verified", "told", "unverified")
    return {
        "stub": stub,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {
            "streamkit": __version__,
            "Python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        **{name: everything[name] for name in kept},
        "trials": trials_by_phase(report),
        "stopped_ms": {place: stopped(report, phases) for place, phases in PLACES.items()},
    }


def trials_by_phase(report: EngineReport) -> dict[str, list[str]]:
    phases = dict.fromkeys(trial.phase for trial in report.trials)
    return {
        phase: [trial.way for trial in report.trials if trial.phase == phase] for phase in phases
    }


def stopped(report: EngineReport, phases: tuple[str, ...]) -> dict[str, float] | None:
    """From the cancel to the proof, of those that had to be told."""
    seconds = [trial.stopped for trial in report.trials if counts(trial, phases)]
    known = [one for one in seconds if one is not None]
    if not known:
        return None
    return {"median": round(1e3 * median(known), 1), "max": round(1e3 * max(known), 1)}


def counts(trial: Trial, phases: tuple[str, ...]) -> bool:
    return trial.phase in phases and trial.told


def machine() -> str:
    """In words: what computes, and how much of it."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else cpu}, {os.cpu_count()} cores, no GPU used"
