"""What every request has in common, whatever serves it: its books, its cancel, its ending."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from streamkit._core import Cancellation, CancelSource, CancelToken, Phase, Reason
from streamkit.errors import EngineFailed, RequestRefused, StreamCancelled

from ._account import Account
from ._admission import Admission
from ._book import Book
from ._inflight import InFlight
from ._ledger import Ledger, Refusal

OnClosed = Callable[[Account], object]


class Host(Protocol):
    """What a request needs of the runner that it belongs to."""

    ledger: Ledger
    in_flight: InFlight
    admission: Admission
    draining: bool


class Case:
    """One request; a context manager around everything that is done to answer it.

    Whoever leaves the block without having completed it has cut it short, or failed: whichever it
    was, what works on it is told, and the books are closed with what came of that. That goes on
    after the block, as held work.

    Attributes:
        id: Its id.
        source: Cancels it.
        token: Its cancel token, a child of the one it was made with.
    """

    __slots__ = ("_books", "_host", "_is_open", "_on_closed", "admitted", "id", "source", "token")

    def __init__(
        self, host: Host, request_id: str, token: CancelToken, on_closed: OnClosed | None
    ) -> None:
        self.id: str = request_id
        self._host = host
        self._on_closed = on_closed
        self._books: Book = host.ledger.open(request_id)
        self._is_open = True
        self.admitted: bool = False
        host.in_flight.add(self)
        self.source: CancelSource = token.child()
        self.source.phase = Phase.READING
        self.token: CancelToken = self.source.token
        self.token.add_listener(self._cancelled)

    def refuse(self) -> None:
        """It is wrong, and will not be started: it counts as refused, not as failed."""
        if not self.admitted and self._is_open and not self.token.cancelled:
            self._refuse("invalid", Reason.ERROR)

    def cancel(self, reason: Reason, detail: str = "") -> bool:
        """Cut it short; False when it had ended or been cancelled."""
        return self.source.cancel(reason, detail)

    def account(self) -> Account:
        """Its books, now."""
        return self._books.account()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_open or self.token.cancelled or self.token.finished:
            return
        if isinstance(exc, StreamCancelled):  # only its stream, or its generation, was cancelled
            cause = exc.cancellation
            self.source.cancel(cause.reason, cause.detail, cause=cause)
        elif exc is not None and not isinstance(exc, Exception):
            reason = Reason.DRAIN if self._host.draining else Reason.REQUESTED
            self.source.cancel(reason, f"the task serving it ended: {type(exc).__name__}")
        elif self.admitted:
            # Its name alone: what it says may be nobody else's business, and stands in the log.
            detail = type(exc).__name__ if exc else "the answer was not completed"
            self._fail(_why_failed(exc), detail)
        elif exc is None or isinstance(exc, RequestRefused | ValueError):
            self._refuse(*_why_refused(exc))
        else:
            self.source.finish()
            self._books.fail(Reason.ERROR, type(exc).__name__, None)
            self._close(self._host.ledger.close(self._books))

    # -- what a kind of request does its own way -----------------------------------------------

    def _cancelled(self, cancellation: Cancellation) -> None:
        """Tell what works on it, and have the end proved."""
        raise NotImplementedError

    def _fail(self, reason: Reason, detail: str) -> None:
        """It was admitted, and broke."""
        raise NotImplementedError

    # -- closing its books ---------------------------------------------------------------------

    def _admit(self) -> None:
        self._host.admission.enter()
        self.admitted = True

    def _refuse(self, why: Refusal, reason: Reason) -> None:
        self.source.finish()
        self._books.fail(reason, why, None)
        account = self._host.ledger.refuse(self._books, why)
        self._host.in_flight.drop(self)
        self._is_open = False
        self._tell(account)

    def _close(self, account: Account, *, keep: bool = False) -> None:
        self._host.in_flight.end(account)
        if self.admitted:
            waited = account.seconds.get(Phase.QUEUED, 0.0)
            self._host.admission.leave(account.age - waited)
        self._is_open = keep
        self._tell(account)

    def _amend(self) -> None:
        """What was given up has ended after all: the books say so."""
        self._host.in_flight.amend(self._host.ledger.amend(self._books))
        self._is_open = False

    def _tell(self, account: Account) -> None:
        if self._on_closed is not None:
            self._on_closed(account)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self._books!r} {self.token!r}>"


def _why_refused(error: BaseException | None) -> tuple[Refusal, Reason]:
    if not isinstance(error, RequestRefused):
        return "invalid", Reason.ERROR
    return ("full" if error.status == 429 else "unavailable"), Reason.SHED


def _why_failed(error: BaseException | None) -> Reason:
    if isinstance(error, RequestRefused):
        return Reason.SHED
    return Reason.ENGINE_FAILED if isinstance(error, EngineFailed) else Reason.ERROR
