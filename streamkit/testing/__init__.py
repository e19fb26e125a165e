"""Tools to test streams: virtual time, clients that leave, cancellation at every point."""

from __future__ import annotations

from ._chaos import ChaosReport, every_cancel_point, every_moment
from ._clock import DeadlockError, VirtualTimeLoop, wait_all_tasks_blocked
from ._connection import Chunk, Received, Sent
from ._events import EventParser, ServerEvent
from ._exchange import Exchange
from ._gate import ThreadGate
from ._lifespan import Lifespan

__all__ = [
    "ChaosReport",
    "Chunk",
    "DeadlockError",
    "EventParser",
    "Exchange",
    "Lifespan",
    "Received",
    "Sent",
    "ServerEvent",
    "ThreadGate",
    "VirtualTimeLoop",
    "every_cancel_point",
    "every_moment",
    "wait_all_tasks_blocked",
]
