"""Which cancel token the running code belongs to, without handing it down by parameter."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from ._token import NEVER, CancelToken

token_var: ContextVar[CancelToken] = ContextVar("streamkit_token", default=NEVER)

SCOPE_KEY: Final = "streamkit"
"""Where a request's ASGI scope keeps its handle: it survives middlewares, mounts, frameworks."""


def current_token() -> CancelToken:
    """Return the cancel token of the work that is running here: async code, sync code or a thread.

    Outside any such work it is a token that is never cancelled, so that the same code runs in a
    script. Context variables carry it into tasks and into threads started through anyio or
    ``asyncio.to_thread``; a thread started by hand needs ``contextvars.copy_context().run``.
    """
    return token_var.get()


def token_of(request: object) -> CancelToken | None:
    """Return the token of an ASGI request, or None where no middleware of ours has seen it."""
    scope = getattr(request, "scope", None)
    handle = scope.get(SCOPE_KEY) if isinstance(scope, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    token = getattr(handle, "token", None)  # pyright: ignore[reportUnknownArgumentType]
    return token if isinstance(token, CancelToken) else None
