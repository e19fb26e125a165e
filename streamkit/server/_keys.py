"""Who may look at requests and cancel them: the operator, and each client its own."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Scope

from streamkit.runner import InFlight, OwnedInFlight

from ._visit import Visit

_HEADER: Final = "x-request-token"
_RAW_HEADER: Final = _HEADER.encode()


class Keys:
    """Held by the routes that look and steer, where an operator key is set.

    Whether there is such a request is told to nobody who may not know: whatever is wrong, the
    answer is the same.

    Args:
        operator_key: Opens every request.
        owned: Knows the secret of each.
    """

    __slots__ = ("_key", "_owned")

    def __init__(self, operator_key: str, owned: OwnedInFlight) -> None:
        self._key = operator_key.encode()
        self._owned = owned

    def require_operator(self, request: Request) -> None:
        """Return if the operator asks.

        Raises:
            HTTPException: 401 it is somebody else.
        """
        if not self._is_operator(request):
            raise _unauthorized("the operator key as a bearer token")

    def require_owner(self, request: Request, request_id: str) -> None:
        """Return if the operator asks, or whoever sent that request.

        Raises:
            HTTPException: 401 it is somebody else.
        """
        if self._is_operator(request):
            return
        own = (_bearer(request), request.headers.get(_HEADER, ""))
        if not any(self._owned.is_owner(request_id, each) for each in own):
            raise _unauthorized(
                f"the operator key as a bearer token, or the {_HEADER} that came with its "
                "answer, in that header or as a bearer token"
            )

    def _is_operator(self, request: Request) -> bool:
        return hmac.compare_digest(_bearer(request).encode(), self._key)

    def __repr__(self) -> str:
        return "<Keys>"  # and not what they are


class OwnedVisit(Visit):
    """An exchange whose answer tells the client the secret of its request."""

    __slots__ = ("_in_flight", "_secret")

    def __init__(
        self,
        in_flight: InFlight,
        scope: Scope,
        visit_id: str,
        on_end: Callable[[Visit], object],
    ) -> None:
        super().__init__(scope, visit_id, on_end)
        self._in_flight = in_flight
        self._secret: str | None = None

    def wait_for_books(self, request_id: str) -> None:
        """Only now is the request of that id ours for certain."""
        super().wait_for_books(request_id)
        self._secret = self._in_flight.secret_of(request_id)

    def answering(self, message: Message) -> None:
        """The status line goes out: with our id and secret, and nobody else's."""
        super().answering(message)
        headers = [each for each in message["headers"] if each[0].lower() != _RAW_HEADER]
        message["headers"] = [*headers, *token_headers(self._secret)]


def token_headers(secret: str | None) -> list[tuple[bytes, bytes]]:
    """How an answer tells it; nothing where there is none."""
    return [] if secret is None else [(_RAW_HEADER, secret.encode())]


def _bearer(request: Request) -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _unauthorized(what: str) -> HTTPException:
    return HTTPException(401, f"this needs {what}", {"www-authenticate": "Bearer"})
