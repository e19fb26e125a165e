"""What an engine's routes and a model's say in the same words: the end, an error, the models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from streamkit.asgi import error_event

DONE: Final = b"data: [DONE]\n\n"
"""The last event of a whole stream."""


def error_content(error: Exception) -> dict[str, Any]:
    """What a stream that broke ends with; OpenAI's clients raise on it, and want no ``[DONE]``."""
    said = error_event(error)["error"]
    return {"error": {**said, "param": None, "code": said.get("reason", said["type"])}}


def describe_model(name: str, since: int) -> dict[str, Any]:
    """A model as OpenAI's clients know it; ``since`` is in seconds since 1970."""
    return {"id": name, "object": "model", "created": since, "owned_by": "streamkit"}


def list_of(*models: dict[str, Any]) -> dict[str, Any]:
    """Them as OpenAI's clients list them."""
    return {"object": "list", "data": list(models)}


def unix_now() -> int:
    """Seconds since 1970."""
    return int(datetime.now(UTC).timestamp())
