"""Tools to test streams: virtual time, clients that leave, cancellation at every point."""

from __future__ import annotations

from ._clock import DeadlockError, VirtualTimeLoop, wait_all_tasks_blocked
from ._connection import Chunk, Received, Sent
from ._events import EventParser, ServerEvent
from ._exchange import Exchange
from ._gate import ThreadGate
from ._lifespan import Lifespan

__all__ = [
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
    "wait_all_tasks_blocked",
]
