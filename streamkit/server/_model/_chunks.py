"""The chunks of a model's stream: text goes out as it is, values as JSON."""

from __future__ import annotations

from typing import cast

from streamkit.errors import UsageBug
from streamkit.runner._model import dump_json


def as_text(chunk: object) -> bytes | None:
    """What needs no form first; None for any other value."""
    if isinstance(chunk, str):
        return chunk.encode()
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(cast("bytes", chunk))
    return None


def as_json(chunk: object) -> bytes:
    """Any other value.

    Raises:
        UsageBug: JSON has no form for it.
    """
    try:
        return dump_json(chunk)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageBug(
            f"the stream yielded {type(chunk).__name__}, which has no JSON form ({error}); yield "
            "text, bytes, or what JSON can hold"
        ) from error


def joined(chunks: list[object]) -> str:
    """All of them as one text, as Truss joins them: bytes first, for a border may cut a character.

    Raises:
        UnicodeDecodeError: The bytes are no UTF-8.
    """
    pieces = [text if (text := as_text(c)) is not None else str(c).encode() for c in chunks]
    return b"".join(pieces).decode()
