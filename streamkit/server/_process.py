"""The process around the app: uvicorn embedded, signals that drain, logs, the ready line."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final, NoReturn

import uvicorn
from prometheus_client import disable_created_metrics

from streamkit._core import hold

from ._connections import Connections, NoFilesLeft, room_for
from ._forks import disown_children
from ._last_line import last_line
from ._orphans import Orphans
from ._protocols import check_installed, protocol_class
from ._pulse import Pulse
from ._sockets import BACKLOG, is_loopback, url_of
from .app import Application
from .settings import Settings

logger = logging.getLogger("streamkit.server")

CLOSE_LIMIT: Final = 5  # seconds for connections to close once all requests have been answered
ACCEPTED_AT_ONCE: Final = 16
# connections in one turn of asyncio's loop; with 2,048 a flood kept others waiting for 1.2 s
# (measured)
LAST_LIMIT: Final = 2.0  # seconds for tasks and threads of the user's that nothing has ended yet
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
# All but tab and line feed; then what breaks lines, or turns text around, in Unicode.
_CONTROLS: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


class Server(uvicorn.Server):
    """uvicorn with our drain in the place of its own.

    The first SIGTERM or SIGINT drains: new requests are refused, running ones get their grace, the
    rest is cancelled and proved stopped. The second one ends the grace. The third one ends the
    process as it is, with exit status 1.

    Attributes:
        status: The exit status.
    """

    def __init__(self, app: Application, settings: Settings) -> None:
        room = Connections(room_for(settings.max_connections))
        super().__init__(_config(app, settings, room))
        self.server_state.connections = room.open
        app.metrics.connections = room
        self.status: int = 0
        self._service = app.service
        self._runner = app.runner
        self._grace = settings.drain_grace
        self._signals = 0
        self._ready = False
        self._orphans = Orphans()
        self._loop: asyncio.AbstractEventLoop
        self._pulse: Pulse

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; what is served may still be loading, and health says so."""
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(BACKLOG)  # asyncio has set it to what it takes at once
        urls = [url_of(sock) for sock in sockets or ()]
        hold(lambda: self._announce(urls), name="announcing", limit=math.inf)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close what is open, and see to it that the process ends."""
        await super().shutdown(sockets)
        logger.info("ended: %s", last_line(self._runner))
        # asyncio.run() waits for tasks that swallow their cancel, and Python for threads.
        last = threading.Timer(LAST_LIMIT, self._end_by_force)
        last.daemon = True
        last.start()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Handle them; uvicorn would exit at once, or never, with a stream open (measured)."""
        self._loop = loop = asyncio.get_running_loop()
        self._pulse = Pulse(
            loop,
            on_beat=self._beat,
            on_dead=self._end_blocked,
        )
        # Python's own handlers, not the loop's: those wait for a loop that may be blocked.
        before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        self._pulse.start()
        try:
            yield
        finally:
            self._pulse.stop()
            self._orphans.note()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        """In the main thread, between two lines of Python: say so, and no more."""
        self._signals += 1
        if self._signals > 2:
            name = signal.Signals(number).name
            logger.error("%s once more, giving up: %s", name, last_line(self._runner))
            _end(1)  # whatever it is that does not end, it shall not end this either
        # Whoever still loads answers nobody: an `async def load` that blocks is not waited for.
        self._pulse.expect_end(CLOSE_LIMIT + (self._grace if self._ready else 0))
        self._loop.call_soon_threadsafe(self._heard, number, self._signals)

    def _heard(self, number: int, count: int) -> None:
        name = signal.Signals(number).name
        if count == 1:
            logger.info("%s: draining, %d requests in flight", name, len(self._runner.in_flight))
            hold(self._drain, name="drain", limit=math.inf)
        else:
            logger.warning("%s again: cancelling what is left", name)
            self._runner.cut_grace()

    def _beat(self) -> None:
        self._keep_signals()
        self._orphans.note()

    def _keep_signals(self) -> None:
        """Some libraries take them, to end the process at once (Ray's driver does)."""
        for number in _SIGNALS:
            if signal.getsignal(number) != self._signalled:
                signal.signal(number, self._signalled)
                name = signal.Signals(number).name
                logger.warning("something took %s: taken back, it has to drain", name)

    async def _announce(self, urls: list[str]) -> None:
        """Say that it can answer, as soon as it can."""
        try:
            await self._service.wait_ready()
            self._ready = True
        except Exception:  # noqa: BLE001 - the service has logged it, with the user's own lines
            self.status = 1
            self.should_exit = True
            return
        if self._signals:  # the load was cut short
            return
        for url in urls:
            _say(f"streamkit: ready on {url}")

    def _end_by_force(self) -> None:
        logger.error("the server is down, but something of the model's does not end: giving it up")
        _end(self.status)

    def _end_blocked(self, place: str) -> None:
        logger.error("told to end, but the event loop is blocked, at %s: giving it up", place)
        _end(1)

    async def _drain(self) -> None:
        await self._runner.drain(self._grace)
        self.should_exit = True


def run(app: Application, settings: Settings, sock: socket.socket) -> int:
    """Serve until a signal ends it; return the exit status."""
    set_up_logging(settings)
    server = Server(app, settings)
    sys.stdout = sys.stderr  # what a model prints; standard output has the ready line alone
    if settings.operator_key is None and not is_loopback(sock):
        logger.warning(
            "everybody who reaches %s may list and cancel all requests: set STREAMKIT_OPERATOR_KEY",
            url_of(sock),
        )
    disown_children(sock)
    disable_created_metrics()  # a series beside each histogram that nobody asked for
    try:
        server.run(sockets=[sock])
    except SystemExit:  # uvicorn's word for a lifespan that failed to start; it has logged why
        return 1
    return server.status


def _end(status: int) -> NoReturn:
    logging.shutdown()
    os._exit(status)


def _say(line: str) -> None:
    """On standard output, whatever the model made of `sys.stdout`."""
    stdout = sys.__stdout__
    if stdout is not None:
        stdout.write(line + "\n")
        stdout.flush()


def set_up_logging(settings: Settings) -> None:
    """Everything to standard error; standard output has the ready line alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OwnLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = settings.log_level.upper()
    logging.basicConfig(level=level, handlers=[handler], force=True)
    access = logging.getLogger("streamkit.access")
    access.setLevel(logging.INFO)  # it has a switch of its own
    if settings.access_log == "json":
        plain = logging.StreamHandler()
        plain.setFormatter(_JsonLine())
        access.handlers = [plain]
        access.propagate = False
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    uvicorn_log.addFilter(_is_news)
    logging.getLogger("asyncio").addFilter(NoFilesLeft())


class _OwnLine(logging.Formatter):
    """Every line that begins at the margin is ours.

    A model's exception says what its client sent, and a client may send what looks like a line of
    the log, or steers the terminal that shows it.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = _CONTROLS.sub(_escaped, super().format(record))
        return text.replace("\n", "\n  ")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class _JsonLine(logging.Formatter):
    """The message is a JSON object already; it gets the time that other lines begin with."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = json.loads(record.getMessage())
        return json.dumps({"time": time, **fields})


# An answer was cut short on purpose, or a handshake refused: the access log has both, with reasons.
_NO_NEWS: Final = {
    "ASGI callable returned without completing response.",
    "ASGI callable returned without completing handshake.",
}


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg not in _NO_NEWS


def _config(app: Application, settings: Settings, room: Connections) -> uvicorn.Config:
    if settings.loop != "auto":
        check_installed("--loop", settings.loop)
    return uvicorn.Config(
        app,
        http=protocol_class(settings.http, settings.read_timeout, room),
        loop=settings.loop,
        # Not "websockets": it has no bound for a client that neither reads nor leaves (measured).
        ws="websockets-sansio",
        ws_max_size=settings.max_body_bytes,
        ws_ping_interval=app.service.pings.interval,
        ws_ping_timeout=app.service.pings.timeout,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # A pipelined request would begin with the context of the one before it, and so would one
        # after a long body (python/cpython#140947): a model's variables are nobody else's.
        reset_contextvars=True,
        backlog=ACCEPTED_AT_ONCE,
        timeout_graceful_shutdown=CLOSE_LIMIT,
    )
