"""The adapter for servers that speak OpenAI's API: each request is a connection, always closed."""

from __future__ import annotations

from typing import Final

from streamkit.engines._known import KnownEngine

from ._engine import CAPABILITIES, INSTALL, UpstreamEngine, from_options
from ._options import OPTIONS

__all__ = ["KNOWN", "OPTIONS", "UpstreamEngine", "from_options"]

_AFFAIR: Final = "what a server does about a closed connection is its own affair"

KNOWN: Final = KnownEngine(
    name="upstream",
    make=from_options,
    options=OPTIONS,
    capabilities=CAPABILITIES,
    package="httpx2",
    install=INSTALL,
    cannot={
        "a promise on queue, prefill and decode": _AFFAIR,
        "a stronger proof": "but with proof=canary, or proof=streamkit, or the server's own log",
        "backpressure": "most servers compute whether anybody reads or not",
        "kill": "HTTP has no such thing",
        "tokens after a cancel": "they are made behind a connection that is closed",
    },
)
