"""The built-in engine: it computes nothing but words, and behaves like one that computes much."""

from __future__ import annotations

from typing import Final

from streamkit.engines._known import KnownEngine

from ._engine import CAPABILITIES, OPTIONS, FakeEngine
from ._log import RequestRecord, StepLog, StepRecord

__all__ = ["KNOWN", "OPTIONS", "FakeEngine", "RequestRecord", "StepLog", "StepRecord"]

KNOWN: Final = KnownEngine(
    name="fake",
    make=FakeEngine,
    options=OPTIONS,
    capabilities=CAPABILITIES,
    cannot={"backpressure": "it computes whether anybody reads or not, as most engines do"},
)
