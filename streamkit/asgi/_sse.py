"""Server-sent events as bytes: any text in, framing that nothing in it can break out.

Our own encoder and not sse-starlette's: that one keeps no state between chunks, and costs
three times as much for a token (measured; docs/decisions/0005).
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any, Final, cast

from streamkit.errors import UsageBug

HEARTBEAT: Final = b": \r\n\r\n"
_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One event with more to it than data.

    Attributes:
        data: Its text, or any value, which is sent as JSON.
        event: Its type; the client's default is ``message``.
        id: What the client sends back as ``Last-Event-ID``; no line break, no NUL.
        retry: Milliseconds after which the client should reconnect.
    """

    data: object
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        for name, field in (("event", self.event), ("id", self.id)):
            if field is not None and re.search(r"[\r\n\0]", field):
                raise UsageBug(f"the {name} of an event cannot hold a line break or NUL: {field!r}")
        if self.retry is not None and self.retry < 0:
            raise UsageBug(f"retry must be 0 or more milliseconds, got {self.retry}")


class EventEncoder:
    """Encodes the chunks of one stream; keeps what a chunk border cut in two.

    Bytes are decoded as UTF-8 across chunks. The format has no way to say a carriage return in
    data: each of CR LF, CR and LF becomes the one line break it has, also when a border parts CR
    from LF.
    """

    __slots__ = ("_after_cr", "_decoder", "_half")

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._half = ""  # the first half of a UTF-16 pair: a tokenizer's cut
        self._after_cr = False

    def encode(self, chunk: object) -> bytes:
        """One chunk as one event; ``b""`` while only part of a character is there."""
        if isinstance(chunk, str):
            return self._plain(chunk) or self._str(chunk)
        if (data := as_bytes(chunk)) is not None:
            return self._bytes(data)
        if isinstance(chunk, ServerEvent):
            return encode_event(chunk)
        return self._text(as_json(chunk))

    def flush(self) -> bytes:
        """What is left at the end: a character that never became whole shows as U+FFFD."""
        rest, self._half = self._half, ""
        if self._decoder is not None:
            rest += self._decoder.decode(b"", final=True)
        return self._text(rest) if rest else b""

    def _plain(self, chunk: str) -> bytes | None:
        """What most tokens are, in half the time: whole characters, and no line break."""
        if self._half or not chunk:
            return None
        try:
            data = chunk.encode()
        except UnicodeEncodeError:
            return None
        if 10 in data or 13 in data:  # line breaks; as numbers they are found in half the time
            return None
        self._after_cr = False
        return b"data: %b\r\n\r\n" % data

    def _str(self, chunk: str) -> bytes:
        text = self._half + chunk
        self._half = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return self._text(text) if text or not chunk else b""

    def _bytes(self, chunk: bytes) -> bytes:
        if self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = self._decoder.decode(chunk)
        return self._text(text) if text or not chunk else b""

    def _text(self, text: str) -> bytes:
        if "\n" not in text and "\r" not in text:
            self._after_cr = self._after_cr and not text
            return b"data: %b\r\n\r\n" % _utf8(text)
        if self._after_cr and text.startswith("\n"):
            text = text[1:]  # the CR before it was the line break already
        self._after_cr = text.endswith("\r") or (self._after_cr and not text)
        return b"%b\r\n" % _data_lines(text)


def encode_event(event: ServerEvent) -> bytes:
    """One event, whole."""
    lines: list[bytes] = []
    if event.event is not None:
        lines.append(b"event: %b\r\n" % _utf8(event.event))
    if event.id is not None:
        lines.append(b"id: %b\r\n" % _utf8(event.id))
    if event.retry is not None:
        lines.append(b"retry: %d\r\n" % event.retry)
    data = event.data if isinstance(event.data, str) else as_json(event.data)
    return b"".join([*lines, _data_lines(data), b"\r\n"])


def as_bytes(chunk: object) -> bytes | None:
    """A bytes-like chunk as bytes; None for anything else."""
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(cast("bytes", chunk))
    return None


def as_json(value: Any) -> str:
    """A value as compact JSON.

    Raises:
        TypeError: JSON has no form for it; the message names the type.
        ValueError: It holds NaN or an infinity, which JSON does not know.
    """
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _data_lines(text: str) -> bytes:
    return b"".join(b"data: %b\r\n" % _utf8(line) for line in _LINE_BREAK.split(text))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Halves of a UTF-16 pair (a tokenizer's cut): two become a character, one becomes U+FFFD.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
