"""A TCP proxy with faults, between any two hops; the faults have toxiproxy's names."""

from __future__ import annotations

from ._command import main
from ._proxy import FaultProxy
from ._toxics import TOXICS, Toxic

__all__ = ["TOXICS", "FaultProxy", "Toxic", "main"]
