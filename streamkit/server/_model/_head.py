"""The head of an answer, looked at before it goes out: a model may have made what none can send."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._errors import NO_BODY, NoForm

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # a line break begins another header
_STATUSES: Final = range(200, 600)  # below, an answer is yet to come; above, there is none


class SoundHead:
    """A response that a model made: its head is looked at before it goes out."""

    __slots__ = ("_app",)

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await self._app(scope, receive, with_sound_head(send))


def with_sound_head(send: Send) -> Send:
    """Return a ``send()`` that refuses a head which its server could not send, or would garble.

    uvicorn closes the connection without a word, or sends what the client takes for two answers.
    Where a status has no body (204), what the model made of one stays here: the server would fail.

    Raises:
        NoForm: By the ``send()`` that is returned; nothing has gone out then.
    """
    passed_on = send

    # A plain function: a coroutine around the other one would cost a frame for each chunk.
    def checked(message: Message) -> Any:
        nonlocal passed_on
        if message["type"] == "http.response.start":
            try:
                _check(message["status"], message.get("headers", ()))
            except ValueError as error:
                raise NoForm from error
            if message["status"] in NO_BODY:
                passed_on = _without_body(send)
        return passed_on(message)

    return checked


def with_late_head(send: Send) -> Send:
    """Return a ``send()`` that holds the head back until there is something to go behind it.

    sse-starlette sends it before it asks for the first event; an error there would have no status.
    """
    head: Message | None = None

    async def behind(first: Message, message: Message) -> None:
        await send(first)
        await send(message)

    async def hold_back() -> None: ...

    def late(message: Message) -> Any:
        nonlocal head
        if message["type"] == "http.response.start":
            head = message
            return hold_back()
        first, head = head, None
        return send(message) if first is None else behind(first, message)

    return late


def _without_body(send: Send) -> Send:
    def emptied(message: Message) -> Any:
        if message["type"] == "http.response.body":
            return send({**message, "body": b""})
        kept = [each for each in message.get("headers", ()) if each[0].lower() != b"content-length"]
        return send({**message, "headers": kept})

    return emptied


def _check(status: object, headers: Iterable[tuple[bytes, bytes]]) -> None:
    if not isinstance(status, int) or status not in _STATUSES:
        raise ValueError(f"{status!r} is no status that an answer can have, 200 to 599")
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r:.80} is no name of a header")
        if _CONTROLS.search(value):
            raise ValueError(f"the header {name.decode()} has a control character in its value")
