"""An ASGI app on a real socket, served inside the test's own loop by a real server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio

from ._connection import ASGIApp

LOOPBACK: Final = "127.0.0.1"
GRACE: Final = 1  # seconds that a stopping server waits for its requests
START_LIMIT: Final = 10.0  # seconds
_LOOK_EVERY: Final = 0.02  # seconds; granian tells nobody when it listens

Certificate: TypeAlias = tuple[Path, Path]
"""PEM files: the certificate, its key."""

Runs: TypeAlias = Callable[
    [ASGIApp, socket.socket, Certificate | None, anyio.Event], Coroutine[Any, Any, None]
]


@asynccontextmanager
async def serve_app(
    app: ASGIApp, server: str = "uvicorn", *, certificate: Certificate | None = None
) -> AsyncGenerator[str]:
    """Serve the app on a free port of loopback while the block runs; gives the URL.

    Server and test share one event loop, so that the test may look into the app.

    Args:
        app: The ASGI app; its lifespan runs.
        server: ``uvicorn``, ``hypercorn`` or ``granian``.
        certificate: Files of a certificate and its key: serve https.

    Raises:
        ValueError: There is no such server here.
        ModuleNotFoundError: It is not installed.
        TimeoutError: It did not start.

    Cancellation:
        Stops the server; requests get a second.
    """
    if server not in _SERVERS:
        raise ValueError(f"server {server!r} is not one of {', '.join(_SERVERS)}")
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_SERVERS[server], app, listener, certificate, stop)
            try:
                await _wait_listening(port)
                yield f"{'https' if certificate else 'http'}://{LOOPBACK}:{port}"
            finally:
                stop.set()


async def _wait_listening(port: int) -> None:
    with anyio.fail_after(START_LIMIT):
        while True:
            with contextlib.suppress(OSError):
                stream = await anyio.connect_tcp(LOOPBACK, port)
                await stream.aclose()
                return
            await anyio.sleep(_LOOK_EVERY)


async def _uvicorn(
    app: ASGIApp, listener: socket.socket, certificate: Certificate | None, stop: anyio.Event
) -> None:
    import uvicorn  # noqa: PLC0415 - every pytest run loads this file, and shall load no server

    class Quiet(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            """Leave signals to the test runner."""
            yield

    tls: Mapping[str, Any] = {}
    if certificate:
        tls = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]}
    config = uvicorn.Config(
        app, log_level="critical", timeout_graceful_shutdown=GRACE, access_log=False, **tls
    )
    server = Quiet(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        await stop.wait()
        server.should_exit = True


async def _hypercorn(
    app: ASGIApp, listener: socket.socket, certificate: Certificate | None, stop: anyio.Event
) -> None:
    config = import_module("hypercorn.config").Config()
    config.bind = [f"fd://{listener.detach()}"]  # it closes what it was given
    config.graceful_timeout = GRACE
    config.errorlog = None
    if certificate:
        config.certfile, config.keyfile = map(str, certificate)
    await import_module("hypercorn.asyncio").serve(app, config, shutdown_trigger=stop.wait)


async def _granian(
    app: ASGIApp, listener: socket.socket, certificate: Certificate | None, stop: anyio.Event
) -> None:
    embed = import_module("granian.server.embed")
    _, port = listener.getsockname()
    listener.close()  # it binds by itself
    tls: Mapping[str, Any] = {}
    if certificate:
        tls = {"ssl_cert": certificate[0], "ssl_key": certificate[1]}
    server = embed.Server(app, LOOPBACK, port, interface="asgi", log_enabled=False, **tls)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        await stop.wait()
        server.stop()


_SERVERS: Final[Mapping[str, Runs]] = {
    "uvicorn": _uvicorn,
    "hypercorn": _hypercorn,
    "granian": _granian,
}
ASGI_SERVERS: Final = tuple(_SERVERS)
"""Servers that :func:`serve_app` knows."""
