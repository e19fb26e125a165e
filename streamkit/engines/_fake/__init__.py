"""The built-in engine: it computes nothing but words, and behaves like one that computes much."""

from __future__ import annotations

from ._engine import OPTIONS, FakeEngine
from ._log import RequestRecord, StepLog, StepRecord

__all__ = ["OPTIONS", "FakeEngine", "RequestRecord", "StepLog", "StepRecord"]
