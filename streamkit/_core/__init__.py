"""Cancellation itself: reason, token, lifecycle, scope bridge, watcher. anyio and nothing else."""

from __future__ import annotations

from ._context import SCOPE_KEY, current_token, token_of, token_var
from ._held import HOLD_LIMIT, held, hold, wait_held
from ._lifecycle import LIVE, TRANSITIONS, Event, Phase, advance, diagram
from ._loop import Interrupted, Interrupter, Loop, Signal, Task, Timer
from ._reason import Cancellation, Reason
from ._running import current_loop, now
from ._scope import cancel_scope, shield_if_cancelled
from ._stepping import resume
from ._token import NEVER, CancelSource, CancelToken, Listener
from ._watcher import (
    POLL_INTERVAL,
    DisconnectWatcher,
    Pollable,
    Receivable,
    WatchMode,
    beside,
)

__all__ = [
    "HOLD_LIMIT",
    "LIVE",
    "NEVER",
    "POLL_INTERVAL",
    "SCOPE_KEY",
    "TRANSITIONS",
    "CancelSource",
    "CancelToken",
    "Cancellation",
    "DisconnectWatcher",
    "Event",
    "Interrupted",
    "Interrupter",
    "Listener",
    "Loop",
    "Phase",
    "Pollable",
    "Reason",
    "Receivable",
    "Signal",
    "Task",
    "Timer",
    "WatchMode",
    "advance",
    "beside",
    "cancel_scope",
    "current_loop",
    "current_token",
    "diagram",
    "held",
    "hold",
    "now",
    "resume",
    "shield_if_cancelled",
    "token_of",
    "token_var",
    "wait_held",
]
