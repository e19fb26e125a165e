"""Where counts can be compared with the table: with the releases that it was made with."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from . import budgets

Check = Callable[..., None]


@pytest.fixture
def check() -> Check:
    """Compare counts with their row; skips where the numbers would mean something else."""
    if sys.gettrace() or sys.getprofile() or "coverage" in sys.modules:
        pytest.skip("a tracer is running, and there can be one only")
    if why := budgets.why_not_here():
        pytest.skip(why)
    return budgets.check


@pytest.fixture(autouse=True)
def without_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production. Some other test may have loaded it, and then the running loop is asked."""
    monkeypatch.setitem(sys.modules, "trio", None)
