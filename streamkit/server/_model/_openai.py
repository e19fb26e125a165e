"""Streams on OpenAI's routes: values framed as its clients expect, text as the model framed it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from starlette.types import Send

from streamkit.asgi import EventStream
from streamkit.server._openai import DONE, error_content

from ._chunks import as_json, as_text
from ._errors import as_failure

NAMED: Final = frozenset({"messages", "responses"})
"""Methods whose clients go by the names of events: the ``type`` of each value is its name."""

_RAW: Final = "application/octet-stream"
_NAME: Final = re.compile(r"[\w.-]+")


class OpenAIStream(EventStream):
    """``data: {…}`` for each value, at the end ``data: [DONE]``, or ``data: {"error": …}``.

    The first chunk decides. Is it text or bytes, the model frames its chunks itself: they go out as
    they are, and a stream that breaks ends un-cleanly, for nothing can be said in a framing that
    only the model knows.

    Args:
        source: As for :class:`EventStream`.
        accepts_events: Whether the client does: raw chunks are then declared as events.
        named: Whether events have names, and no ``[DONE]`` follows them (see :data:`NAMED`).
        **options: Those of :class:`EventStream`.
    """

    def __init__(self, source: Any, *, accepts_events: bool, named: bool, **options: Any) -> None:
        super().__init__(source, **options)
        self._accepts_events = accepts_events
        self._named = named
        self._framed: bool | None = None  # until the first chunk

    def _as_failure(self, error: BaseException) -> Exception | None:
        return as_failure(error)

    def _encode(self, chunk: object) -> bytes:
        text = as_text(chunk)
        if self._framed is None:
            self._framed = text is None
            if not self._framed:
                self._declare_raw()
        return self._event(chunk) if text is None else text

    def _declare_raw(self) -> None:
        if not self._accepts_events:
            self.media_type = _RAW
            self.init_headers()

    def _last(self, count: int) -> bytes:
        super()._last(count)  # which ends the heartbeat
        if not count:
            self._declare_raw()  # nothing was framed: Truss's own word for what it streams
        return DONE if self._framed and not self._named else b""

    async def _beat(self, send: Send) -> None:
        if self._framed:  # nobody knows where in the model's own framing there is room for it
            await super()._beat(send)

    def _farewell(self, error: Exception) -> bytes | None:
        if not self._framed:
            return None
        content = error_content(error)
        return self._event({"type": "error", **content} if self._named else content)

    def _event(self, value: object) -> bytes:
        name = _name_of(value) if self._named else None
        head = b"" if name is None else b"event: %b\n" % name.encode()
        return b"%bdata: %b\n\n" % (head, as_json(value))


def _name_of(value: object) -> str | None:
    if isinstance(value, Mapping):
        name = cast("Mapping[object, object]", value).get("type")
    else:
        name = getattr(value, "type", None)
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None
