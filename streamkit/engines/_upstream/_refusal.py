"""What an upstream's status means for whoever asked us: who has to act, and when to come back."""

from __future__ import annotations

import json
from typing import Any, Final, cast

from streamkit.errors import BadPayload, EngineFailed, RequestRefused

RETRY_AFTER: Final = 1.0  # seconds, where the upstream names none
LONGEST_RETRY: Final = 3600.0
SHOWN: Final = 500  # characters of an upstream's own message

_CLIENT: Final = frozenset({400, 413, 415, 422})  # the client has to send another body
_BUSY: Final = {429: 429, 503: 503, 529: 503}  # it has to come back later, and is told so as
# All others are for whoever runs the gateway: its key (401, 403), its path or its model (404) are
# wrong, or the upstream failed.


def refusal(status: int, message: str, retry_after: float = RETRY_AFTER) -> Exception:
    """Return the error that says the same."""
    told = f"the upstream answered {status}: {message[:SHOWN]}"
    if status in _CLIENT:
        return BadPayload(message[:SHOWN])
    if status in _BUSY:
        return RequestRefused(told, retry_after=retry_after, status=_BUSY[status])
    return EngineFailed(told)


def seconds_of(retry_after: str | None) -> float:
    """Return what a ``Retry-After`` header says; a date counts as none."""
    try:
        return min(max(0.0, float(retry_after or RETRY_AFTER)), LONGEST_RETRY)
    except ValueError:
        return RETRY_AFTER


def message_in(body: str) -> str:
    """Return the message in the body of an error, whoever's form it has."""
    try:
        said: Any = json.loads(body)
    except ValueError:
        return body.strip()
    while isinstance(said, dict):
        fields = cast("dict[str, Any]", said)
        named = (fields[name] for name in ("error", "message", "detail") if fields.get(name))
        said = next(named, body)
    return said if isinstance(said, str) else body
