"""Which cancel token the running code belongs to, without handing it down by parameter."""

from __future__ import annotations

from contextvars import ContextVar

from ._token import NEVER, CancelToken

token_var: ContextVar[CancelToken] = ContextVar("streamkit_token", default=NEVER)


def current_token() -> CancelToken:
    """Return the cancel token of the work that is running here: async code, sync code or a thread.

    Outside any such work it is a token that is never cancelled, so that the same code runs in a
    script. Context variables carry it into tasks and into threads started through anyio or
    ``asyncio.to_thread``; a thread started by hand needs ``contextvars.copy_context().run``.
    """
    return token_var.get()
