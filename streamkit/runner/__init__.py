"""Requests to an engine: admission, what is in flight, proof of stop, and the books. No HTTP."""

from __future__ import annotations

from ._account import Account, Ending, Sums, Totals
from ._admission import Admission
from ._call import Call, Output
from ._engine_runner import EngineRunner
from ._inflight import CancelOutcome, InFlight
from ._ledger import Ledger
from ._owned import OwnedInFlight
from ._runner import Runner
from ._served import Served

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
    "OwnedInFlight",
    "Runner",
    "Served",
    "Sums",
    "Totals",
]
