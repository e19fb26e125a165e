"""What the connection below a request knows and the server does not say: that its peer has left."""

from __future__ import annotations

import select
import socket
import struct
import sys
from typing import Any, Final, Protocol

from starlette.types import Receive

_LEFT: Final = getattr(select, "POLLRDHUP", 0)  # Linux; others say POLLHUP, which is always on
_INFO: Final = struct.Struct("=B51xII")  # of Linux's struct tcp_info, as linux/tcp.h has it
_ESTABLISHED: Final = 1
_TCP: Final = socket.IPPROTO_TCP


class Transport(Protocol):
    """Of asyncio's transports, what is needed here."""

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        ...

    def abort(self) -> None:
        """Close it, and drop what was not sent."""

    def get_extra_info(self, name: str) -> Any:
        """Its socket, among others."""


def transport_of(receive: Receive) -> Transport | None:
    """Return the transport behind a server's ``receive()`` where it can be reached (uvicorn)."""
    return getattr(getattr(receive, "__self__", None), "transport", None)


def left_unseen(transport: Transport, silent_for: float) -> str:
    """Return what shows that the peer has left although the server is silent; ``""`` if nothing.

    uvicorn stops reading a connection while a request on it has more than 64 KiB of its body
    unread, or a pipelined one behind it, and then sees no FIN. It forgets the running request when
    the connection of a pipelined one is lost (both measured). The kernel knows all the same.

    Of a host that vanished the kernel has no word, but it knows since when (Linux). Its own limits
    do not add up to one: keepalive counts while nothing is sent, TCP_USER_TIMEOUT from a write on,
    so that a write just before the end of the first waits for the whole of the second (measured).

    Args:
        transport: The connection.
        silent_for: Seconds without a packet of the peer's after which it counts as gone. The kernel
            needs 2 of them: it asks a silent peer after whole seconds.
    """
    if transport.is_closing():
        return "the connection is closed"
    sock = transport.get_extra_info("socket")
    if sock is None:
        return ""
    if (known := _tcp_info(sock)) is None:
        return "the client closed its side, unread" if _polled(sock) else ""
    state, *silences = known
    if state != _ESTABLISHED:
        return "the client closed its side, unread"
    silence = min(silences) / 1000
    if silence >= silent_for:
        return f"no packet of the client's has come for {silence:.3g} s (limit {silent_for:.3g} s)"
    if silence >= silent_for / 3:
        _ask_whether_there(sock, silent_for)
    return ""


def _tcp_info(sock: Any) -> tuple[int, int, int] | None:
    """State, and milliseconds since the last data and the last acknowledgement that came."""
    if sys.platform != "linux":
        return None
    try:
        return _INFO.unpack(sock.getsockopt(_TCP, socket.TCP_INFO, _INFO.size))
    except (OSError, struct.error):  # a Unix domain socket
        return None


def _ask_whether_there(sock: Any, silent_for: float) -> None:
    """See to it that the kernel asks a silent peer, which then says something if it is there."""
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
