"""Faults of clients: ways to leave, or to stay badly, and phases to do it in; over raw sockets."""

from __future__ import annotations

from ._menu import FAULT_PHASES, FAULT_WAYS, Fault, draw_faults, fault_menu
from ._seen import Ask, Seen
from ._visit import visit

__all__ = [
    "FAULT_PHASES",
    "FAULT_WAYS",
    "Ask",
    "Fault",
    "Seen",
    "draw_faults",
    "fault_menu",
    "visit",
]
