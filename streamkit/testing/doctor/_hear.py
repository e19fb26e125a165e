"""One answer, with the instant at which each piece of it came."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

from streamkit._core import now
from streamkit.testing._clients import LeavingClient, open_connection
from streamkit.testing._events import EventParser
from streamkit.testing._faults import Ask
from streamkit.testing._http1 import BadResponse, Head

TOGETHER: Final = 0.002  # seconds: reads that are so close are one burst, cut by the kernel
_COMPRESSIONS: Final = frozenset({"gzip", "deflate", "x-gzip"})  # that can be read here
_BODY_LIMIT: Final = 64 << 20  # bytes; a server under test may send anything, without end
_LINE_LIMIT: Final = 1 << 20  # characters
_EITHER: Final = zlib.MAX_WBITS | 32  # gzip or zlib, whatever it is


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one read brought: bytes as they were sent, and what they said."""

    at: float
    size: int
    events: int
    comments: int


@dataclass(slots=True, kw_only=True)
class Heard:
    """One answer; instants are on the loop's clock.

    Attributes:
        began_at: Before it connected.
        sent_at: The whole request was sent.
        head: Status and headers; None: none came.
        arrivals: Reads that brought a part of the body.
        body: All of it, decompressed if that was possible.
        ended_at: No more came.
        complete: It came to its announced end.
        error: What went wrong, in one line.
    """

    began_at: float
    sent_at: float | None = None
    head: Head | None = None
    arrivals: list[Arrival] = field(default_factory=list[Arrival])
    body: bytearray = field(default_factory=bytearray)
    ended_at: float = 0.0
    complete: bool = False
    error: str | None = None

    @property
    def seconds(self) -> float:
        """From the request sent to the end of the answer."""
        return self.ended_at - (self.sent_at or self.began_at)

    @property
    def events(self) -> int:
        """Server-sent events that came."""
        return sum(arrival.events for arrival in self.arrivals)

    @property
    def comments(self) -> Sequence[float]:
        """When comments came, in seconds from the request."""
        sent_at = self.sent_at or self.began_at
        return [each.at - sent_at for each in self.arrivals for _ in range(each.comments)]

    @property
    def first_event_after(self) -> float | None:
        """Seconds from the request to its first event; to its first byte, where it has none."""
        sent_at = self.sent_at or self.began_at
        brings = [each.at for each in self.arrivals if each.events or not self.events]
        return brings[0] - sent_at if brings else None

    def header(self, name: str) -> str:
        """A header of the answer; empty: it has none."""
        return self.head.headers.get(name, "") if self.head is not None else ""

    @property
    def answered(self) -> bool:
        """Whether it is a whole answer with status 200."""
        return self.complete and self.head is not None and self.head.status == 200

    @property
    def fault(self) -> str:
        """What became of an answer that is not whole."""
        status = "no answer" if self.head is None else f"status {self.head.status}"
        cut = "" if self.complete or self.head is None else ", cut"
        return self.error or f"{status}{cut}"


class _Decoder(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


async def hear(ask: Ask) -> Heard:
    """Ask, and read to the end, stamping each read.

    What goes wrong on the way is in the result, as it is an observation.

    Cancellation:
        Closes the connection.
    """
    heard = Heard(began_at=now())
    try:
        async with open_connection(ask.url, timeout=ask.timeout, tls=ask.tls) as client:
            await client.send_request(ask.method, ask.target, json=ask.json, headers=ask.headers)
            heard.sent_at = now()
            await _read(client, heard)
    except (OSError, BadResponse, zlib.error) as error:
        heard.error = f"{type(error).__name__}: {error}"
    heard.ended_at = now()
    return heard


async def _read(client: LeavingClient, heard: Heard) -> None:
    response, parser = client.response, EventParser()
    decoder: _Decoder | None = None
    while await client.take():
        if heard.head is None and response.head is not None:
            heard.head = response.head
            if response.head.headers.get("content-encoding", "") in _COMPRESSIONS:
                decoder = zlib.decompressobj(_EITHER)
        sent = b"".join(response.chunks)
        response.chunks.clear()
        if sent:
            body = decoder.decompress(sent, _BODY_LIMIT) if decoder else sent
            events = parser.feed(body)
            at = now()
            heard.arrivals.append(Arrival(at, len(sent), len(events), len(parser.comments)))
            parser.comments.clear()
            heard.body += body
            if len(heard.body) > _BODY_LIMIT or parser.waiting > _LINE_LIMIT:
                raise BadResponse("the answer, or a line of it, has no end")
    heard.complete = response.finished
    if response.head is None:
        raise ConnectionError(f"the connection ended ({client.cut_by}) without an answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How evenly an answer came.

    Attributes:
        held: Seconds that a token waited on average for others that came with it.
        bursts: Times at which something came.
        tokens: That came, as far as events or bytes tell.
        longest: Seconds without a byte, at most.
        largest: Bytes that came at once, at most.
    """

    held: float
    bursts: int
    tokens: int
    longest: float
    largest: int


def pace_of(heard: Heard, asked: int) -> Pace:
    """How evenly an answer of so many tokens came.

    A server makes tokens one after the other. Of ``k`` that come together after a gap of ``g``
    seconds, the first waited for the others, ``g (k - 1) / k``, the last not at all: half of that
    on average. What comes by itself waited for nobody, however slow the server is.
    """
    bursts = _bursts(heard)
    events = heard.events
    size = sum(burst.size for burst in bursts)
    each = size / max(1, asked)  # bytes; where there are no events, tokens are counted by these
    counts = [max(1.0, burst.events if events else burst.size / max(each, 1)) for burst in bursts]
    total = sum(counts)
    gaps = [after.at - before.at for before, after in pairwise(bursts)]
    held = sum(gap * (count - 1) / 2 for gap, count in zip(gaps, counts[1:], strict=True))
    if bursts:
        first = bursts[0].at - (heard.sent_at or heard.began_at)
        gaps.append(first)
        # Until its first byte a server also thinks: what follows says how long a token takes it.
        rest = total - counts[0]
        if rest >= 1:
            first = min(first, counts[0] * (bursts[-1].at - bursts[0].at) / rest)
        held += first * (counts[0] - 1) / 2
    return Pace(
        held=held / total if total else 0.0,
        bursts=len(bursts),
        tokens=round(total),
        longest=max(gaps, default=0.0),
        largest=max((burst.size for burst in bursts), default=0),
    )


def _bursts(heard: Heard) -> Sequence[Arrival]:
    bursts: list[Arrival] = []
    for each in heard.arrivals:
        if bursts and each.at - bursts[-1].at < TOGETHER:
            last = bursts.pop()
            events, comments = last.events + each.events, last.comments + each.comments
            each = Arrival(last.at, last.size + each.size, events, comments)  # noqa: PLW2901
        bursts.append(each)
    return bursts
