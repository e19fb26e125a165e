"""One call of a plain function under a token: in a thread of its own, or right here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Generic, TypeVar, cast

import anyio

from streamkit._core import CancelToken, token_var
from streamkit.errors import ThreadInterrupted

from ._interrupt import InterruptibleCalls
from ._thread_job import REPORT_AFTER, ThreadJob, report_late_error
from ._workers import OneThread

R = TypeVar("R")

CALL_GRACE: Final = 5.0  # seconds; how long a shutdown waits for a cancelled call in a thread

Args = Sequence[object]
Kwargs = Mapping[str, object]


async def call_in_thread(  # noqa: PLR0913 - a call, and the options of sync code
    function: Callable[..., R],
    args: Args,
    kwargs: Kwargs,
    *,
    token: CancelToken,
    interrupt: bool = False,
    report_after: float = REPORT_AFTER,
    close_grace: float = CALL_GRACE,
    on_end: Callable[[], object] | None = None,
    thread: OneThread | None = None,
) -> R:
    """Return ``function(*args, **kwargs)``, run on a worker thread of its own, or on ``thread``.

    Inside, ``current_token()`` is ``token``. A thread cannot be killed: after a cancel it runs on
    until the function asks the token, is interrupted (``interrupt``, CPython only) or ends. Its
    caller does not wait for that, but a shutdown does, ``close_grace`` seconds at most. What keeps
    the cancel waiting longer than ``report_after`` seconds is reported with the line it hangs at.
    ``on_end()`` is called once, in the loop, when the function has ended, also long after its
    caller has left, or when it was never begun.

    Raises:
        StreamCancelled: The token was cancelled before the result was there.

    Cancellation:
        As a cancel of the token, except that the function cannot see it there: whoever owns the
        token's source cancels that as well.
    """
    call = _ThreadCall(partial(function, *args, **kwargs), _name(function), on_end)
    call.job = ThreadJob(
        call.run,
        name=call.name,
        on_end=call.ended,
        report_after=report_after,
        interrupt=interrupt,
    )
    call.start(token, thread)
    listener = token.add_listener(lambda _: call.settled.set())
    try:
        await call.settled.wait()
    finally:
        listener.remove()
        call.leave(close_grace)
    if call.left:
        token.raise_if_cancelled()
    return call.result()


def call_here(
    function: Callable[..., R],
    args: Args,
    kwargs: Kwargs,
    *,
    token: CancelToken,
    interrupt: bool = False,
) -> R:
    """Return ``function(*args, **kwargs)``, run in this very thread (a framework's, most often).

    Inside, ``current_token()`` is ``token``. With ``interrupt`` (CPython only) a cancel of the
    token ends it between two bytecodes; the event loop must then run in another thread.

    Raises:
        StreamCancelled: The token was cancelled before, the function asked it and raised, or it
            was interrupted.
    """
    token.raise_if_cancelled()
    call = partial(function, *args, **kwargs)
    outer = token_var.set(token)
    try:
        return _interruptible(call, token) if interrupt else call()
    finally:
        token_var.reset(outer)


def _interruptible(call: Callable[[], R], token: CancelToken) -> R:
    calls = InterruptibleCalls()
    listener = token.add_listener(lambda _: calls.interrupt())
    try:
        return calls.run(call)
    except ThreadInterrupted:
        token.raise_if_cancelled()
        raise
    finally:
        listener.remove()


class _ThreadCall(Generic[R]):
    """What the caller and the worker of one call share.

    Attributes:
        name: The function's qualified name.
        job: Its run on a worker thread.
        settled: Set when the call has ended or its token was cancelled.
        left: Whether the caller went before the end: nobody reads the result.
    """

    __slots__ = ("_call", "_error", "_on_end", "_result", "job", "left", "name", "settled")

    def __init__(
        self, call: Callable[[], R], name: str, on_end: Callable[[], object] | None
    ) -> None:
        self._on_end = on_end
        self.name = name
        self.job: ThreadJob | None = None
        self.settled = anyio.Event()
        self.left = False
        self._call = call
        self._result: R | None = None
        self._error: BaseException | None = None

    def start(self, token: CancelToken, thread: OneThread | None) -> None:
        """Give it a thread."""
        assert self.job is not None
        try:
            token.raise_if_cancelled()
            self.job.start(token, "call", thread)
        except BaseException:
            self._say_ended()
            raise

    def run(self) -> None:
        """Make the call; in the worker's thread."""
        assert self.job is not None
        try:
            self._result = self.job.call(self._call)
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised again by result()
            self._error = error

    def leave(self, grace: float) -> None:
        """The caller goes: with the result, or before there is one."""
        assert self.job is not None
        if not self.job.ended.is_set():
            self.left = True
            self.job.stop(grace)

    def ended(self) -> None:
        """The worker is through."""
        self.settled.set()
        self._say_ended()
        if self.left and self._error is not None:
            report_late_error(self.name, self._error)

    def _say_ended(self) -> None:
        if self._on_end is not None:
            self._on_end()

    def result(self) -> R:
        """Return what the function returned, or raise what it raised."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        return cast("R", self._result)

    def __repr__(self) -> str:
        return f"<call of {self.name} {'left' if self.left else self.job!r}>"


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
