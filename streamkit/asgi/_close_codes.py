"""Close codes of websockets: what a cancel sends, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from starlette.types import Message

from streamkit._core import Cancellation, Reason

CLOSE_CODES: Final[Mapping[Reason, int]] = MappingProxyType(
    {
        Reason.CLIENT_DISCONNECT: 1001,  # these two never go out: nobody is there
        Reason.WRITE_STALLED: 1001,
        Reason.REQUESTED: 1008,
        Reason.DEADLINE: 1008,
        Reason.DRAIN: 1012,
        Reason.SHED: 1013,
        Reason.SUPERSEDED: 1008,
        Reason.ENGINE_FAILED: 1011,
        Reason.ERROR: 1011,
    }
)
"""How a cancelled websocket is closed (RFC 6455 §7.4.1, and IANA's registry for 1012 and 1013).

1008 is the standard's word for "no other fits", and the one that no client reconnects on by itself.
The reason's own word goes with it as the text of the close frame.
"""

_SERVER_RESTARTS: Final = 1012


def farewell(kind: str, cancellation: Cancellation) -> Message:
    """The ``close`` that the client gets, or the ``disconnect`` that the app reads."""
    reason = cancellation.reason
    return {"type": f"websocket.{kind}", "code": CLOSE_CODES[reason], "reason": str(reason)}


def why_lost(message: Message) -> tuple[Reason, str]:
    """What a server's ``websocket.disconnect`` means: reason and detail of the cancel."""
    code = message.get("code", 1005)
    if code == _SERVER_RESTARTS and "reason" not in message:
        # uvicorn's own word, at once on SIGTERM. What a client says has a reason, if only "".
        return Reason.DRAIN, f"the server closes its websockets (code {code})"
    said = f": {reason}" if (reason := message.get("reason")) else ""
    return Reason.CLIENT_DISCONNECT, f"the websocket ended (code {code}{said})"
