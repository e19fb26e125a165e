"""What the connection below a request knows and the server does not say: that its peer has left."""

from __future__ import annotations

import select
from typing import Any, Final, Protocol

from starlette.types import Receive

_LEFT: Final = getattr(select, "POLLRDHUP", 0)  # Linux; others say POLLHUP, which is always on


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


def left_unseen(transport: Transport | None) -> str:
    """Return what shows that the peer has left although the server is silent; ``""`` if nothing.

    uvicorn stops reading a connection while a request on it has more than 64 KiB of its body
    unread, or a pipelined one behind it, and then sees no FIN. It forgets the running request when
    the connection of a pipelined one is lost (both measured). The kernel knows all the same.
    """
    if transport is None:
        return ""
    if transport.is_closing():
        return "the connection is closed"
    return "the client closed its side, unread" if _peer_closed(transport) else ""


def _peer_closed(transport: Transport) -> bool:
    socket = transport.get_extra_info("socket")
    if socket is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(socket.fileno(), _LEFT)
    return bool(poll.poll(0))
