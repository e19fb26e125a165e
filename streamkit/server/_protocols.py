"""uvicorn's HTTP protocols with what they lack: limits for connections and heads, our errors."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any, Final

from ._connections import Connections
from ._raw_answer import raw_answer

_IMPLEMENTATIONS: Final = {
    "h11": ("uvicorn.protocols.http.h11_impl", "H11Protocol"),
    "httptools": ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol"),
}
HEAD_LIMIT: Final = 65_536
# bytes, as h11 has it. httptools has no limit: 150 MB of headers took 1.8 GB (measured).

WRITE_BUFFER: Final = 16_384
# bytes that asyncio may hold before send() waits: its 64 KiB are a minute of tokens that a client
# which stopped reading is not missed for

_BOTH: Final = {b"content-length", b"transfer-encoding"}


class NotInstalled(Exception):
    """A package that was asked for is missing; the message says how to get it."""


def protocol_class(http: str, read_timeout: float, room: Connections) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol of that name (``auto``: the faster that there is), made patient.

    Raises:
        NotInstalled: httptools was asked for and is not there.
    """
    if http == "auto":
        http = "httptools" if importlib.util.find_spec("httptools") else "h11"
    check_installed("--http", http)
    module, name = _IMPLEMENTATIONS[http]
    base = getattr(importlib.import_module(module), name)
    ours = (_Patient, _TakesOneLength, base) if http == "h11" else (_Patient, base)
    return type(name, ours, {"read_timeout": read_timeout, "room": room})


def check_installed(flag: str, package: str) -> None:
    """Return if the package is there.

    Raises:
        NotInstalled: It is not.
    """
    if package != "asyncio" and importlib.util.find_spec(package) is None:
        raise NotInstalled(
            f"{flag} {package}: {package} is not installed; pip install 'streamkit-llm[uvloop]', "
            "or leave the choice to auto"
        )


class _TakesOneLength:
    """Mixed into h11's; httptools refuses such a request.

    h11 takes one that has a length and comes in chunks as well, and goes on with what follows. A
    proxy that went by the length took that for its body: it is nobody's request (RFC 9112, 6.1).
    """

    cycle: Any
    headers: list[tuple[bytes, bytes]]

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()  # type: ignore[misc]
        if self.cycle is not before and dict(self.headers).keys() >= _BOTH:
            self.cycle.keep_alive = False


class _Patient:
    """Mixed into one of the two; ``cycle`` is uvicorn's name for the request being answered.

    uvicorn waits for ever for a client that sends half a head, whatever its length, and tells ASGI
    nothing of it.
    """

    read_timeout: float
    room: Connections
    cycle: Any
    transport: asyncio.Transport
    _timer: asyncio.TimerHandle | None = None
    _silent = True  # it has not sent a byte
    _head = 0  # bytes of a head that is not complete

    def connection_made(self, transport: asyncio.Transport) -> None:
        if self.room.full:
            self.room.turn_away(transport)
            return
        super().connection_made(transport)  # type: ignore[misc]
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        self._silent = False
        before = self.cycle
        in_body = before is not None and before.more_body
        super().data_received(data)  # type: ignore[misc]
        speaks: Any = self.transport.get_protocol()
        if speaks is not self:  # it is a websocket's from here on
            self._stop_waiting()
            return
        if in_body or self.cycle is not before:
            self._head = 0
        else:
            self._measure_head(len(data))
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)  # type: ignore[misc]

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed."""
        self._refuse("400 Bad Request", "invalid_request_error", msg)

    def _wait_for_head(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.read_timeout, self._too_late)

    def _measure_head(self, size: int) -> None:
        """What came after a whole request, and began no new one, is part of the next head."""
        self._head += size
        if self._head > HEAD_LIMIT:
            limit = f"the request's head is longer than {HEAD_LIMIT} bytes"
            self._refuse("431 Request Header Fields Too Large", "invalid_request_error", limit)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        if self._silent:
            self.transport.close()
            return
        limit = f"the request's head did not arrive within {self.read_timeout:g} s"
        self._refuse("408 Request Timeout", "request_timeout", limit)

    def _refuse(self, status: str, kind: str, message: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # an answer now would be read as part of the one before
            return
        if not self.transport.is_closing():
            self.transport.write(raw_answer(status, kind=kind, message=message))
            self.transport.close()
