"""Whose names the server answers to: a page in a browser can have its own name lead here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from streamkit.asgi import problem

_HOST: Final = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]*)?", re.IGNORECASE)
_CAN_DENY: Final = "websocket.http.response"
_POLICY: Final = 1008  # of a close before the handshake, which servers turn into a 403


class Hosts:
    """Refuses whoever asks for another host than these, before anything of it is read.

    Not Starlette's ``TrustedHostMiddleware``: its answer is a text, where all of ours are JSON, and
    of two hosts it believes the first.

    Args:
        app: The layer below.
        allowed: Names, in lower case; ``*.name`` is every name below that one.
    """

    __slots__ = ("_app", "_below", "_names")

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(allowed)
        self._below = tuple(name[1:] for name in self._names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan" or self._allows(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket" and _CAN_DENY not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _POLICY})
        else:
            said = "this host is not served here (allowed_hosts)"
            answer = problem(400, said, type="invalid_request_error", code="host_not_allowed")
            await answer(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            return False
        name = found[1].decode().lower().strip("[]")
        return name in self._names or name.endswith(self._below)
