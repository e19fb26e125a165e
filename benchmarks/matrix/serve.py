"""One server of the matrix: ``python -m benchmarks.matrix.serve KIND PORT``.

Where a server takes a listening socket, it gets the one that `streamkit serve` would listen on.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping

from benchmarks.matrix.app import Witnessed, make
from streamkit.server._process import run, set_up_logging
from streamkit.server._sockets import listen
from streamkit.server.settings import Settings, load

TLS = "MATRIX_TLS"  # the variable with the paths of the certificate and of its key


def streamkit_serve(settings: Settings) -> int:
    app = Witnessed(settings, hears_signals=False)
    with listen(settings) as sock:
        return run(app, settings, sock)


def uvicorn(settings: Settings) -> int:
    import uvicorn  # noqa: PLC0415 - each process needs one of them

    certificate, key = tls()
    config = uvicorn.Config(
        make(),
        http=settings.http,
        loop=settings.loop,
        log_level="warning",
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    with listen(settings) as sock:
        uvicorn.Server(config).run(sockets=[sock])
    return 0


def hypercorn(settings: Settings) -> int:
    from hypercorn.asyncio import serve  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415

    config = Config()
    config.certfile, config.keyfile = tls()
    config.keep_alive_timeout = settings.read_timeout
    config.graceful_timeout = 1
    with listen(settings) as sock:
        # It can be looked at by nobody: the kernel has to ask, from the start.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        config.bind = [f"fd://{sock.detach()}"]
    asyncio.run(serve(make(), config))
    return 0


def granian(settings: Settings) -> int:
    """It opens its own socket, and has limits of its own."""
    certificate, key = tls()
    https = ("--ssl-certificate", certificate, "--ssl-keyfile", key or "") if certificate else ()
    os.execv(
        sys.executable,
        [
            sys.executable, "-m", "granian", "--interface", "asgi", "--loop", "asyncio",
            "--log-level", "warning", "--host", settings.host, "--port", str(settings.port),
            "--http1-header-read-timeout", str(round(settings.read_timeout * 1000)),
            "--http2-keep-alive-interval", str(round(settings.read_timeout * 1000)),
            "--http2-keep-alive-timeout", "1",
            *https,
            "--factory", "benchmarks.matrix.app:make",
        ],
    )  # fmt: skip


def tls() -> tuple[str, str] | tuple[None, None]:
    """Files, if it shall serve https."""
    certificate, _, key = os.environ.get(TLS, "").partition(":")
    return (certificate, key) if certificate else (None, None)


KINDS: Mapping[str, Callable[[Settings], int]] = {
    "serve": streamkit_serve,
    "uvicorn": uvicorn,
    "hypercorn": hypercorn,
    "granian": granian,
}

if __name__ == "__main__":
    settings = load({"port": sys.argv[2]}, os.environ)
    set_up_logging(settings)
    sys.exit(KINDS[sys.argv[1]](settings))
