"""Server-sent events as an upstream sends them: bytes in, the data of each event out, bounded."""

from __future__ import annotations

from typing import Final

from streamkit.errors import EngineFailed

LIMIT: Final = 1 << 20  # bytes of one event; OpenAI's have some hundred, log probabilities included


class EventDecoder:
    """Decodes one stream; what is not the data of an event (names, ids, comments) is dropped."""

    __slots__ = ("_data", "_size", "_unread")

    def __init__(self) -> None:
        self._unread = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[str]:
        """Return the data of each event that this piece completes.

        Raises:
            EngineFailed: An event is too long, or no UTF-8.
        """
        lines = (self._unread + piece).splitlines(keepends=True)
        # A line that ends in CR may go on with an LF.
        whole = bool(lines) and lines[-1].endswith(b"\n")
        self._unread = b"" if whole or not lines else lines.pop()
        if len(self._unread) + self._size > LIMIT:
            raise EngineFailed(f"the upstream sent an event of more than {LIMIT} bytes")
        events = [self._take(line.rstrip(b"\r\n")) for line in lines]
        return [event for event in events if event is not None]

    def _take(self, line: bytes) -> str | None:
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
                self._size += len(value)
            return None
        if not self._data:
            return None
        data, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise EngineFailed(f"the upstream sent an event that is no UTF-8: {error}") from error

    def __repr__(self) -> str:
        return f"<EventDecoder {len(self._unread) + self._size} bytes unread>"
