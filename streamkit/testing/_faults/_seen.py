"""What a client asks, and what it saw before it went."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from streamkit._core import now
from streamkit.testing._events import EventParser, ServerEvent
from streamkit.testing._http1 import BadResponse, encode_request

_BODY_LIMIT: Final = 64 << 20  # bytes; a hundred thousand tokens in OpenAI's framing are half
_LINE_LIMIT: Final = 1 << 20
_NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, to be made any number of times.

    Attributes:
        url: All of it: ``http://HOST:PORT/PATH``, or https.
        method: HTTP method.
        json: A value to send as JSON; None: no body.
        headers: Request headers.
        timeout: Real seconds that each wait may last.
        tls: What to believe of an https server, if not what this machine believes.
        http2: Come over HTTP/2 (prior knowledge; over TLS, ``tls`` has to offer ``h2``) whatever
            the fault is, and not only for one that HTTP/1.1 does not have.
    """

    url: str
    method: str = "POST"
    json: object = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    timeout: float = 10.0
    tls: ssl.SSLContext | None = None
    http2: bool = False

    @property
    def target(self) -> str:
        """Path and query."""
        parts = urlsplit(self.url)
        return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"

    def encode(self) -> tuple[bytes, bytes]:
        """Head and body, as they go over an HTTP/1.1 connection."""
        host = urlsplit(self.url).netloc
        request = encode_request(
            self.method, self.target, host=host, json=self.json, headers=self.headers
        )
        head, end, body = request.partition(b"\r\n\r\n")
        return head + end, body


@dataclass(slots=True, kw_only=True)
class Seen:
    """What one client saw; instants are on the loop's clock.

    Attributes:
        fault: What it was to do.
        began_at: Before it connected.
        connected_at: TCP, and TLS, were there.
        sent_at: The whole request was sent.
        first_byte_at: The first piece of the body came.
        left_at: Just before it went.
        ended_at: The visit was over; later than ``left_at`` for one who stays badly.
        status: Of the answer.
        body: What came of it.
        events: The same, as server-sent events.
        visits: How often it came; more than once in a storm.
        reached: It came to the phase; False: the answer ended before, or the server refused.
        complete: The answer came to its announced end.
        error: What went wrong, in one line; a fault that was meant is none.
    """

    fault: str
    began_at: float
    connected_at: float | None = None
    sent_at: float | None = None
    first_byte_at: float | None = None
    left_at: float | None = None
    ended_at: float | None = None
    status: int | None = None
    body: bytearray = field(default_factory=bytearray)
    events: list[ServerEvent] = field(default_factory=list[ServerEvent])
    visits: int = 1
    reached: bool = False
    complete: bool = False
    error: str | None = None
    _parser: EventParser = field(default_factory=EventParser, repr=False)

    def take(self, piece: bytes, at: float) -> None:
        """A piece of the body came.

        Raises:
            BadResponse: It is more than anybody can want to see of it.
        """
        if len(self.body) > _BODY_LIMIT:
            raise BadResponse(f"the answer is longer than {_BODY_LIMIT} bytes")
        if self.first_byte_at is None:
            self.first_byte_at = at
        self.body += piece
        if self._parser.waiting < _LINE_LIMIT:  # else it is no event stream
            self.events += self._parser.feed(piece)

    def left(self, stamp: float | None) -> None:
        """It went, at that instant on the system's clock: later than when it set about to."""
        if stamp is not None:
            self.left_at = now() - (time.monotonic() - stamp)  # noqa: TID251 - a stamp of its own
