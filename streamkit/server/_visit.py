"""One exchange or websocket, from its first byte to its closed books: its id, and its log line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamkit._core import Phase, Reason, current_loop
from streamkit.runner import Account, InFlight

logger = logging.getLogger("streamkit.access")

VISIT_KEY: Final = "streamkit.visit"
"""Where the ASGI scope keeps the :class:`Visit`."""

CLIENT_LEFT: Final = 499
_SWITCHED: Final = 101  # to a websocket
_FORBIDDEN: Final = 403  # what servers answer where a handshake is closed
_LEFT: Final = frozenset({Reason.CLIENT_DISCONNECT, Reason.WRITE_STALLED})
_NO_VALUE: Final = "-"
_QUOTED: Final = re.compile(r'[^!-~]|["=]')  # anything but ASCII, or what would read as two fields
_ID_HEADER: Final = b"x-request-id"

Format = Callable[[dict[str, Any]], str]


class Visit:
    """What the log says of one exchange; written when it and the books of its request are closed.

    Attributes:
        id: The request's id, as the answer's ``x-request-id`` says it.
        route: The path as the routes have it, for metrics.
        account: The closed books of its request, if it had any.
    """

    __slots__ = (
        "_arrived",
        "_ended_after",
        "_now",
        "_on_end",
        "_scope",
        "_status",
        "_waits",
        "account",
        "id",
        "route",
    )

    def __init__(self, scope: Scope, visit_id: str, on_end: Callable[[Visit], object]) -> None:
        self.id: str = visit_id
        self.route: str = "other"
        self._scope = scope
        self._on_end = on_end
        self._now = current_loop().now
        self._arrived = self._now()
        self._status: int | None = None
        self._ended_after: float | None = None
        self.account: Account | None = None
        self._waits = False  # for the books of a request

    @property
    def status(self) -> int:
        """As metrics have it: 499 when the client left, whatever had been sent before."""
        left = self.account is not None and self.account.reason in _LEFT
        return CLIENT_LEFT if left or self._status is None else self._status

    def answering(self, message: Message) -> None:
        """The status line goes out: with our id."""
        self._status = message["status"]
        # An app that hands on another server's answer hands on the id that it had there.
        others = (each for each in message.get("headers", ()) if each[0].lower() != _ID_HEADER)
        message["headers"] = [*others, (_ID_HEADER, self.id.encode())]

    def handshake(self, message: Message) -> None:
        """A websocket is accepted, with our id, or refused."""
        match message["type"]:
            case "websocket.accept":
                answer = {**message, "status": _SWITCHED}
                self.answering(answer)
                message["headers"] = answer["headers"]
            case "websocket.http.response.start":
                self.answering(message)
            case "websocket.close" if self._status is None:
                self._status = _FORBIDDEN
            case _:
                pass

    def wait_for_books(self, request_id: str) -> None:
        """There are books to wait for, under this id."""
        self.id = request_id
        self._waits = True

    def books_closed(self, account: Account) -> None:
        """They are closed."""
        self.account = account
        self._waits = False
        self._end_if_over()

    def ended(self) -> None:
        """The exchange is over."""
        self._ended_after = self._now() - self._arrived
        self._end_if_over()

    def fields(self) -> dict[str, Any]:
        """What the log says, in its order."""
        scope, account = self._scope, self.account
        fields: dict[str, Any] = {
            "id": self.id,
            "method": scope["method"],
            "path": scope["path"],
            "status": self.status,
        }
        if account is not None:
            fields |= _fields_of(account)
        return {**fields, "total_s": self._ended_after}

    def _end_if_over(self) -> None:
        if self._ended_after is not None and not self._waits:
            self._on_end(self)

    def __repr__(self) -> str:
        return f"<Visit {self.id} {self._scope['path']} {self._status}>"


class Front:
    """The outermost layer: gives each exchange its id and its line in the log.

    Args:
        app: The layer below.
        in_flight: Which ids are taken.
        on_end: Called with each visit that is over.
        visit: What makes one.
    """

    __slots__ = ("_app", "_choose_id", "_on_end", "_visit")

    def __init__(
        self,
        app: ASGIApp,
        in_flight: InFlight,
        on_end: Callable[[Visit], object],
        visit: Callable[[Scope, str, Callable[[Visit], object]], Visit] = Visit,
    ) -> None:
        self._app = app
        self._choose_id = in_flight.choose_id
        self._on_end = on_end
        self._visit = visit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._rarer(scope, receive, send)
            return
        visit = self._visit(scope, self._choose_id(_proposed_id(scope)), self._on_end)

        # A plain function: a coroutine around the server's own would cost a frame for each token.
        def send_with_id(message: Message) -> Any:
            if message["type"] == "http.response.start":
                visit.answering(message)
            return send(message)

        try:
            await self._app({**scope, VISIT_KEY: visit}, receive, send_with_id)
        finally:
            visit.ended()

    async def _rarer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A websocket, which is begun by a GET, or the lifespan."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        visit_id = self._choose_id(_proposed_id(scope))
        visit = self._visit({**scope, "method": "GET"}, visit_id, self._on_end)

        def send_with_id(message: Message) -> Any:
            visit.handshake(message)
            return send(message)

        try:
            await self._app({**scope, VISIT_KEY: visit}, receive, send_with_id)
        finally:
            visit.ended()


def log_visit(form: Format) -> Callable[[Visit], None]:
    """Return what logs a visit in that form."""

    def log(visit: Visit) -> None:
        if logger.isEnabledFor(logging.INFO):
            logger.info(form(visit.fields()))

    return log


def as_text(fields: dict[str, Any]) -> str:
    """``key=value`` pairs; a value with a space or a quote in it is quoted as JSON does it."""
    return " ".join([f"{key}={_text(value)}" for key, value in fields.items()])


def as_json(fields: dict[str, Any]) -> str:
    """One JSON object."""
    return json.dumps({key: _rounded(value) for key, value in fields.items()})


FORMS: Final[dict[str, Format]] = {"text": as_text, "json": as_json}


def _fields_of(account: Account) -> dict[str, Any]:
    return {
        "phase": account.cancelled_in or account.phase,
        "reason": account.reason,
        "prompt_tokens": account.prompt_tokens,
        "produced": account.produced,
        "delivered": account.delivered,
        "saved": account.saved,
        "queue_s": account.seconds.get(Phase.QUEUED),
        "first_token_s": account.first_token_after,
        "told_s": account.told_after,
        "proved_s": account.proved_after,
        "proof": account.proof.word if account.proof else None,
    }


def _text(value: object) -> str:
    if value is None:
        return _NO_VALUE
    if isinstance(value, str):  # enums are
        text = str(value)
        return json.dumps(text) if _QUOTED.search(text) else text
    return str(_rounded(value))  # a number needs no quotes


def _rounded(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value


def _proposed_id(scope: Scope) -> str | None:
    proposed = [value for name, value in scope["headers"] if name == _ID_HEADER]
    return proposed[0].decode("latin-1").strip() if len(proposed) == 1 else None
