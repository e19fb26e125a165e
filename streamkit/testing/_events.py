"""Server-sent events as a client sees them; knows text, no sockets."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One event of a ``text/event-stream``.

    Attributes:
        data: The data lines, joined with newlines.
        event: Its type; ``message`` when the server named none.
        id: The last id that the server had set, if any.
    """

    data: str
    event: str = "message"
    id: str | None = None

    def json(self) -> object:
        """The data, decoded."""
        return json.loads(self.data)


class EventParser:
    """Turns bytes, cut anywhere, into events, as the HTML standard tells browsers to."""

    __slots__ = ("_buffer", "_data", "_decoder", "_event", "_id", "comments")

    def __init__(self) -> None:
        self.comments: list[str] = []  # heartbeats, among others
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._buffer = ""
        self._data: list[str] = []
        self._event = ""
        self._id: str | None = None

    @property
    def waiting(self) -> int:
        """Characters of a line whose end has not come."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that are complete now."""
        self._buffer += self._decoder.decode(data)
        events: list[ServerEvent] = []
        while (line := self._next_line()) is not None:
            if line:
                self._field(line)
            elif event := self._dispatch():
                events.append(event)
        return events

    def _next_line(self) -> str | None:
        ends = [at for at in map(self._buffer.find, "\r\n") if at >= 0]
        if not ends:
            return None
        end = min(ends)
        if self._buffer[end] == "\r" and end + 1 == len(self._buffer):
            return None  # whether a newline belongs to it shows with the next byte
        width = 2 if self._buffer.startswith("\r\n", end) else 1
        line, self._buffer = self._buffer[:end], self._buffer[end + width :]
        return line

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                self.comments.append(value)
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._id = value
            case _:
                pass  # the standard: ignore what you do not know

    def _dispatch(self) -> ServerEvent | None:
        data, self._data = self._data, []
        event, self._event = self._event, ""
        if not data:
            return None
        return ServerEvent(data="\n".join(data), event=event or "message", id=self._id)

    def __repr__(self) -> str:
        return f"<EventParser {len(self._buffer)} characters of an open line>"
