"""Where counts can be compared with the table: with the releases that it was made with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest

from . import budgets
from .counting import ROOT

Check = Callable[..., None]
COUNTED_THROUGH = ("anyio", "pydantic", "starlette")


@pytest.fixture
def check() -> Check:
    """Compare counts with their row; skips where the numbers would mean something else."""
    if why := _why_not():
        pytest.skip(why)
    return budgets.check


@pytest.fixture(autouse=True)
def without_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production. Some other test may have loaded it, and then the running loop is asked."""
    monkeypatch.setitem(sys.modules, "trio", None)


def _why_not() -> str:
    if budgets.THIS not in budgets.PYTHONS:
        return f"nobody has counted on Python {budgets.THIS}"
    if sys.gettrace() or sys.getprofile() or "coverage" in sys.modules:
        return "a tracer is running, and there can be one only"
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    others = [
        f"{name} {version(name)}"
        for name in COUNTED_THROUGH
        if f"{name}=={version(name)}" not in pins
    ]
    return f"the budgets are for constraints.txt, here is {', '.join(others)}" if others else ""
