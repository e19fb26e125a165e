"""The HTTP edge: owner of receive, responses, server-sent events, errors as clients see them."""

from __future__ import annotations

from streamkit._core import DisconnectWatcher, WatchMode

from ._middleware import CancellationMiddleware
from ._problems import STATUS, cancelled_problem, error_event, problem
from ._responses import ByteStream, EventStream
from ._sse import EventEncoder, ServerEvent, encode_event
from ._watch import request_token, watch_disconnect

__all__ = [
    "STATUS",
    "ByteStream",
    "CancellationMiddleware",
    "DisconnectWatcher",
    "EventEncoder",
    "EventStream",
    "ServerEvent",
    "WatchMode",
    "cancelled_problem",
    "encode_event",
    "error_event",
    "problem",
    "request_token",
    "watch_disconnect",
]
