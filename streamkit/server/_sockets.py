"""The listening socket, set up so that what is sent to a client does not wait for it for ever.

What is set on a listening socket, accepted sockets inherit (Linux, macOS). The middleware finds a
client that vanished while its request runs; what is left of a complete answer only the kernel can
give up.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from ipaddress import ip_address

from .settings import Settings

logger = logging.getLogger("streamkit.server")

BACKLOG = 2048  # connections that wait to be accepted; Linux caps it at net.core.somaxconn


class CannotListen(Exception):
    """The address cannot be listened on; the message says why and what to do."""


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket.

    Raises:
        CannotListen: The port is taken, forbidden, or the host is not ours.
    """
    host, port = settings.host, settings.port
    sock: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        _set_options(sock, settings)
        sock.bind(address)
        sock.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        if sock is not None:
            sock.close()
        raise CannotListen(
            f"cannot listen on {_spelt(host, port)}: {_why(error)}; choose another --host or "
            "--port (--port 0 picks a free one)"
        ) from None
    return sock


def url_of(sock: socket.socket) -> str:
    """Where a listening socket can be reached."""
    host, port = sock.getsockname()[:2]
    return f"http://{_spelt(host, port)}"


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    address = ip_address(sock.getsockname()[0].partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _set_options(sock: socket.socket, settings: Settings) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for level, name, value in _options(settings):
        if value is None:
            continue
        number = getattr(socket, name, None)
        if number is None:
            logger.debug("this platform has no %s", name)
            continue
        try:
            sock.setsockopt(level, number, value)
        except OSError as error:
            logger.debug("%s cannot be set to %d here: %s", name, value, error)


def _options(settings: Settings) -> Iterator[tuple[int, str, int | None]]:
    tcp = socket.IPPROTO_TCP
    yield tcp, "TCP_USER_TIMEOUT", round(settings.loss_bound * 1000)
    # By default 3.9 MB are swallowed before a client that does not read is noticed: no answer of a
    # language model is that long. With these two it is some 200 KB (measured).
    yield tcp, "TCP_NOTSENT_LOWAT", settings.tcp_notsent_lowat
    yield socket.SOL_SOCKET, "SO_SNDBUF", settings.tcp_send_buffer


def _spelt(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why(error: OSError | UnicodeError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return f"it is no host name ({error})"
