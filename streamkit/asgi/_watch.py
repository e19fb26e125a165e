"""`watch_disconnect`: the token of a request, where neither a decorator nor a response fits."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from streamkit._core import (
    POLL_INTERVAL,
    CancelToken,
    DisconnectWatcher,
    WatchMode,
    beside,
    cancel_scope,
    current_token,
    token_of,
    token_var,
)
from streamkit.errors import UsageBug


@asynccontextmanager
async def watch_disconnect(
    request: object,
    *,
    mode: WatchMode | None = None,
    interval: float = POLL_INTERVAL,
) -> AsyncGenerator[CancelToken]:
    """Run a block that is cut short when the client of ``request`` leaves.

    Where :class:`CancellationMiddleware` is installed this only borrows the request's token and
    costs nothing. Elsewhere a :class:`DisconnectWatcher` runs beside the block: told by the server
    (mode ``event``, which reads the body first; ``request.json()`` still works afterwards), or, for
    a request that can only be asked, every ``interval`` seconds (mode ``poll``).

    Raises:
        StreamCancelled: The block was cut short. Not raised when it came to its end nevertheless.

    Cancellation:
        The watcher ends with the block.
    """
    if (token := token_of(request)) is not None and mode is not WatchMode.POLL:
        with cancel_scope(token):
            yield token
        return
    source = current_token().child()
    watcher = DisconnectWatcher(request, source, mode=mode, interval=interval)
    outer = token_var.set(source.token)
    try:
        await watcher.prepare()
        async with beside(watcher.run, f"streamkit disconnect watcher ({watcher.mode})"):
            with cancel_scope(source.token):
                yield source.token
    finally:
        token_var.reset(outer)
        source.finish()


def request_token(request: object) -> CancelToken:
    """Return the cancel token of a request; the way to ask below ``BaseHTTPMiddleware``.

    There, ``request.is_disconnected()`` never says so (measured);
    ``request_token(request).cancelled`` does.

    Raises:
        UsageBug: The middleware is not installed.
    """
    token = token_of(request)
    if token is None:
        raise UsageBug(
            "this request has no cancel token: install streamkit.asgi.CancellationMiddleware, "
            "or use `async with watch_disconnect(request) as token:`"
        )
    return token
