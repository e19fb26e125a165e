"""Tools to test streams: virtual time, clients that leave, cancellation at every point."""

from __future__ import annotations

from ._at_rest import assert_engine_idle, assert_nothing_left
from ._body import ResponseEnded
from ._chaos import ChaosReport, every_cancel_point, every_moment
from ._clients import LeavingClient, open_connection, open_request
from ._clock import DeadlockError, VirtualTimeLoop, wait_all_tasks_blocked
from ._conformance import (
    PHASES,
    WAYS,
    CheckPlan,
    EngineFactory,
    EngineReport,
    Finding,
    Pace,
    Trial,
    check_engine,
)
from ._connection import Chunk, Received, Sent
from ._events import EventParser, ServerEvent
from ._exchange import Exchange
from ._faults import (
    FAULT_PHASES,
    FAULT_WAYS,
    Ask,
    Fault,
    Seen,
    draw_faults,
    fault_menu,
    visit,
)
from ._gate import ThreadGate
from ._http1 import BadResponse, Head, ResponseReader, encode_request
from ._http2 import Http2Client, Http2Stream, open_http2
from ._lifespan import Lifespan
from ._proxy import TOXICS, FaultProxy, Toxic
from ._serving import ASGI_SERVERS, serve_app
from ._sockets import Leave

__all__ = [
    "ASGI_SERVERS",
    "FAULT_PHASES",
    "FAULT_WAYS",
    "PHASES",
    "TOXICS",
    "WAYS",
    "Ask",
    "BadResponse",
    "ChaosReport",
    "CheckPlan",
    "Chunk",
    "DeadlockError",
    "EngineFactory",
    "EngineReport",
    "EventParser",
    "Exchange",
    "Fault",
    "FaultProxy",
    "Finding",
    "Head",
    "Http2Client",
    "Http2Stream",
    "Leave",
    "LeavingClient",
    "Lifespan",
    "Pace",
    "Received",
    "ResponseEnded",
    "ResponseReader",
    "Seen",
    "Sent",
    "ServerEvent",
    "ThreadGate",
    "Toxic",
    "Trial",
    "VirtualTimeLoop",
    "assert_engine_idle",
    "assert_nothing_left",
    "check_engine",
    "draw_faults",
    "encode_request",
    "every_cancel_point",
    "every_moment",
    "fault_menu",
    "open_connection",
    "open_http2",
    "open_request",
    "serve_app",
    "visit",
    "wait_all_tasks_blocked",
]
