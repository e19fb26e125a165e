"""Requests to an engine: admission, what is in flight, proof of stop, and the books. No HTTP."""

from __future__ import annotations

from ._account import Account, Ending, Sums, Totals
from ._admission import Admission
from ._call import Call, Output
from ._inflight import CancelOutcome, InFlight
from ._ledger import Ledger
from ._runner import EngineRunner

__all__ = [
    "Account",
    "Admission",
    "Call",
    "CancelOutcome",
    "Ending",
    "EngineRunner",
    "InFlight",
    "Ledger",
    "Output",
    "Sums",
    "Totals",
]
