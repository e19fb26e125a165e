"""A response body as a test reads it: by chunk, by event, or all of it."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque

from ._events import EventParser, ServerEvent


class ResponseEnded(Exception):
    """The body ended before what was waited for."""


class BodyReader:
    """Reads a body that comes in chunks. Chunks and events of one body should not be mixed.

    Attributes:
        comments: Comment lines of the event stream so far: heartbeats, among others.
    """

    __slots__ = ("_events", "_parser", "_taken")

    def __init__(self) -> None:
        self._parser = EventParser()
        self._events: deque[ServerEvent] = deque()
        self._taken = 0

    @property
    def comments(self) -> list[str]:
        """Comment lines of the event stream so far: heartbeats, among others."""
        return self._parser.comments

    @property
    @abstractmethod
    def ended_cleanly(self) -> bool | None:
        """Whether the body came to its announced end; None: it was not read so far."""

    @abstractmethod
    async def read_chunk(self) -> bytes:
        """Return the next piece of the body, as the server framed it; ``b""`` at the end."""

    async def read_body(self) -> bytes:
        """Return the rest of the body; look at :attr:`ended_cleanly` for whether that is all."""
        pieces: list[bytes] = []
        while piece := await self.read_chunk():
            pieces.append(piece)
        return b"".join(pieces)

    async def read_event(self) -> ServerEvent:
        """Return the next server-sent event.

        Raises:
            ResponseEnded: There is none.
        """
        while not self._events:
            if not (chunk := await self.read_chunk()):
                how = "cleanly" if self.ended_cleanly else "cut off"
                raise ResponseEnded(f"the body ended ({how}) after {self._taken} events")
            self._events.extend(self._parser.feed(chunk))
        self._taken += 1
        return self._events.popleft()

    async def read_until(self, events: int) -> list[ServerEvent]:
        """Return that many events.

        Raises:
            ResponseEnded: There are fewer.
        """
        return [await self.read_event() for _ in range(events)]

    async def read_events(self) -> list[ServerEvent]:
        """Return all events up to the end of the body."""
        events: list[ServerEvent] = []
        while chunk := await self.read_chunk():
            self._events.extend(self._parser.feed(chunk))
        events.extend(self._events)
        self._events.clear()
        self._taken += len(events)
        return events
