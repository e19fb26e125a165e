"""The table of budgets: reads it, compares, says what to do, and writes it when asked to."""

from __future__ import annotations

import json
import math
import os
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

TABLE: Final = Path(__file__).parent / "budgets.toml"
PINS: Final = Path(__file__).parents[2] / "constraints.txt"
COUNTED_THROUGH: Final = ("anyio", "pydantic", "starlette")
PYTHONS: Final = ("3.11", "3.12", "3.13")
THIS: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
GENEROUS: Final = 0.9  # of a budget: who counts less shall lower it, or the table says nothing
DUST: Final = 1e-9
WRITE: Final = os.environ.get("COSTS") == "write"


def all_budgets() -> dict[str, dict[str, Any]]:
    """Every row, by ``group.case``."""
    table = tomllib.loads(TABLE.read_text())
    return {f"{group}.{name}": row for group, rows in table.items() for name, row in rows.items()}


def why_not_here() -> str:
    """Why this environment's counts cannot be compared with the table; empty where they can."""
    if THIS not in PYTHONS:
        return f"nobody has counted on Python {THIS}"
    here = [f"{name}=={version(name)}" for name in COUNTED_THROUGH]
    others = sorted(set(here) - set(PINS.read_text().splitlines()))
    return f"the budgets are for constraints.txt, here is {', '.join(others)}" if others else ""


def check(case: str, counted: Mapping[str, float], *, tolerance: float = DUST) -> None:
    """Compare with the table; AssertionError with both numbers and what to do.

    ``tolerance`` is the part of a count, or of 1, that two runs may differ by.
    """
    if WRITE:
        _write(case, counted)
        return
    row = all_budgets().get(case, {})
    problems = [
        problem
        for metric, count in counted.items()
        if (problem := _problem(metric, count, _of_this_python(row.get(metric)), tolerance))
    ]
    if not problems:
        return
    raise AssertionError(
        "\n".join([f"{case} ({row.get('about', 'not in the table')}):", *problems, _ADVICE])
    )


_ADVICE: Final = (
    "More than budgeted: take the cost out again, or say in the commit what it buys. "
    f"Less: well done; `COSTS=write` and the same command put it into {TABLE.name}."
)


def _problem(metric: str, counted: float, budget: float | None, tolerance: float) -> str:
    if budget is None:
        return f"  {metric}: {counted:.6g} counted on Python {THIS}, no budget"
    numbers = f"  {metric}: {counted:.6g} counted, {budget:.6g} budgeted"
    off = tolerance * max(1, budget)
    if counted > budget + off:
        return f"{numbers}: too much"
    return f"{numbers}: lower the budget" if counted < GENEROUS * budget - off else ""


def _of_this_python(budget: Any) -> float | None:
    if isinstance(budget, dict):
        return budget.get(THIS)
    return budget


def _write(case: str, counted: Mapping[str, float]) -> None:
    table = all_budgets()
    row = table.setdefault(case, {"about": "say what it is"})
    for metric, count in counted.items():
        row[metric] = _merged(row.get(metric), _rounded(metric, count))
    TABLE.write_text(_comment() + "".join(_row(name, row) for name, row in table.items()))


def _rounded(metric: str, count: float) -> float:
    # Of memory the allocator decides a little, of the rest nobody.
    return round(1.05 * count, 1) if metric == "kib" else math.ceil(count * 1e4 - DUST) / 1e4


def _merged(budget: Any, count: float) -> Any:
    """One number where all Pythons count the same."""
    columns = budget if isinstance(budget, dict) else dict.fromkeys(PYTHONS, budget)
    columns = {**columns, THIS: count}
    known = set(columns.values()) - {None}
    return count if len(known) == 1 else {k: v for k, v in columns.items() if v is not None}


def _row(name: str, row: Mapping[str, Any]) -> str:
    about = json.dumps(row["about"], ensure_ascii=False)
    lines = [f"{key} = {_value(value)}" for key, value in row.items() if key != "about"]
    return "\n".join(["", f"[{name}]", f"about = {about}", *lines, ""])


def _value(value: Any) -> str:
    if not isinstance(value, dict):
        return str(int(value)) if value == round(value) else repr(value)
    return "{ " + ", ".join(f'"{k}" = {_value(v)}' for k, v in value.items()) + " }"


def _comment() -> str:
    lines = TABLE.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("#"))
