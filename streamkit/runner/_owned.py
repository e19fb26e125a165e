"""Requests with an owner: each gets a secret, and whoever knows it may ask for that request."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from typing import Final

from ._account import Account
from ._inflight import REMEMBERED, InFlight, InFlightCall

_BYTES: Final = 24  # 192 bits: nobody guesses one, however many are tried
_NOBODYS: Final = secrets.token_urlsafe(_BYTES)  # compared with where there is no such request


class OwnedInFlight(InFlight):
    """The table, with a secret for each record, forgotten with it.

    Not derived from id and time of arrival: clients choose ids, and a clock has a resolution.
    Not kept by id alone: of two requests with one id, the one ended and the other running or
    refused, neither must have the other's.
    """

    __slots__ = ("_of_ended", "_of_running")

    def __init__(self, remembered: int = REMEMBERED) -> None:
        super().__init__(remembered)
        self._of_running: dict[str, str] = {}
        self._of_ended: OrderedDict[str, str] = OrderedDict()

    def add(self, call: InFlightCall) -> None:
        """A request arrived: it gets its secret."""
        super().add(call)
        self._of_running[call.id] = secrets.token_urlsafe(_BYTES)

    def drop(self, call: InFlightCall) -> None:
        """It was refused: there is nothing to ask for."""
        super().drop(call)
        del self._of_running[call.id]

    def end(self, account: Account) -> None:
        """Its books were closed; they can be looked at for as long as they are remembered."""
        super().end(account)
        self._of_ended.pop(account.id, None)
        self._of_ended[account.id] = self._of_running.pop(account.id)
        if len(self._of_ended) > self.remembered:
            self._of_ended.popitem(last=False)

    def secret_of(self, request_id: str) -> str | None:
        """The secret of a request in flight."""
        return self._of_running.get(request_id)

    def is_owner(self, request_id: str, secret: str) -> bool:
        """Whether it is the secret of the request that :meth:`find` finds; in constant time."""
        known = self._of_running.get(request_id) or self._of_ended.get(request_id) or _NOBODYS
        return hmac.compare_digest(secret.encode(), known.encode())
