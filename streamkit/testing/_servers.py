"""How ASGI servers differ in what an app sees of its client: a table of what real ones do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

ServerName: TypeAlias = Literal["uvicorn", "hypercorn", "granian", "standard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One kind of server.

    Attributes:
        spec_version: What it writes into ``scope["asgi"]``.
        repeats: ``http.disconnect`` is given to all who call ``receive()``, as often as they ask.
            Otherwise to one caller, once; every further call waits for ever.
        body_first: A body that arrived before the client left can still be read afterwards.
        answers_late: ``receive()`` suspends even if it has an answer. A poll that is cancelled
            there (as ``is_disconnected()`` does) only learns with its next call.
        bare_awaitable: ``receive()`` returns an awaitable that is no coroutine.
        lies_to_early_receivers: A ``receive()`` that waits for a body which other calls then read
            to its end gets an ``http.disconnect``, although the client is there.
        ends_body_apart: The last message of a body is empty; no piece says that it is the last.
        send_raises: ``send()`` to a client that left raises OSError instead of doing nothing.
    """

    spec_version: str
    repeats: bool = True
    body_first: bool = False
    answers_late: bool = False
    bare_awaitable: bool = False
    lies_to_early_receivers: bool = False
    ends_body_apart: bool = False
    send_raises: bool = False


SERVERS: Final[dict[ServerName, Server]] = {
    "uvicorn": Server(spec_version="2.3"),
    "hypercorn": Server(spec_version="2.1", repeats=False, body_first=True, ends_body_apart=True),
    "granian": Server(
        spec_version="2.3",
        answers_late=True,
        bare_awaitable=True,
        lies_to_early_receivers=True,
        body_first=True,
        ends_body_apart=True,
    ),
    # ASGI 2.4 to the letter. No server does it for HTTP yet, but Starlette is ready for it.
    "standard": Server(spec_version="2.4", send_raises=True),
}
