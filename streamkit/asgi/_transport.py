"""What the connection below a request knows and the server does not say: that its peer has left."""

from __future__ import annotations

import select
import socket
import struct
import sys
from typing import Any, Final, Protocol

from starlette.types import Receive

_LEFT: Final = getattr(select, "POLLRDHUP", 0)  # Linux; others say POLLHUP, which is always on
_INFO: Final = struct.Struct("=52xII")
# of Linux's struct tcp_info, as linux/tcp.h has it: milliseconds since the last data came, and
# since the last acknowledgement
_TCP: Final = socket.IPPROTO_TCP


class Transport(Protocol):
    """Of asyncio's transports, what is needed here."""

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        ...

    def abort(self) -> None:
        """Close it, and drop what was not sent."""

    def is_reading(self) -> bool:
        """Whether the server takes what comes, and so sees its end."""
        ...

    def get_extra_info(self, name: str) -> Any:
        """Its socket, among others."""


def transport_of(receive: Receive) -> Transport | None:
    """Return the transport behind a server's ``receive()`` where it can be reached (uvicorn)."""
    return getattr(getattr(receive, "__self__", None), "transport", None)


def left_unseen(transport: Transport) -> str:
    """Return what shows that the peer has left although the server is silent; ``""`` if nothing.

    uvicorn stops reading a connection while a request on it has more than 64 KiB of its body
    unread, or a pipelined one behind it, and then sees no FIN: the kernel is asked. A server that
    reads sees it by itself. It forgets the running request when the connection of a pipelined one
    is lost (both measured).
    """
    if transport.is_closing():
        return "the connection is closed"
    if transport.is_reading():
        return ""
    sock = transport.get_extra_info("socket")
    return "the client closed its side, unread" if sock is not None and _polled(sock) else ""


def silence_of(transport: Transport) -> float | None:
    """Return for how many seconds no packet of the peer's has come; None where nobody knows.

    Of a host that vanished the kernel has no word, but it knows since when (Linux). Its own limits
    do not add up to one: keepalive counts while nothing is sent, TCP_USER_TIMEOUT from a write on,
    so that a write just before the end of the first waits for the whole of the second (measured).
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sys.platform != "linux":
        return None
    try:
        return min(_INFO.unpack(sock.getsockopt(_TCP, socket.TCP_INFO, _INFO.size))) / 1000
    except (OSError, struct.error):  # a Unix domain socket
        return None


def ask_whether_there(transport: Transport, silent_for: float) -> None:
    """See to it that the kernel asks a silent peer, which then says something if it is there.

    Args:
        transport: The connection, of which the kernel knows its silence.
        silent_for: Seconds within which it asks twice: 2 at least, for it counts whole ones.
    """
    sock = transport.get_extra_info("socket")
    idle, interval = max(1, int(silent_for / 2)), max(1, int(silent_for / 6))
    asks = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if asks and sock.getsockopt(_TCP, socket.TCP_KEEPIDLE) == idle:
        return
    sock.setsockopt(_TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(_TCP, socket.TCP_KEEPINTVL, interval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _polled(sock: Any) -> bool:
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _LEFT)
    return bool(poll.poll(0))
