"""Tools to test streams: virtual time, clients that leave, cancellation at every point."""

from __future__ import annotations

from ._clock import DeadlockError, VirtualTimeLoop, wait_all_tasks_blocked
from ._gate import ThreadGate

__all__ = ["DeadlockError", "ThreadGate", "VirtualTimeLoop", "wait_all_tasks_blocked"]
