"""The cancel token: written once, read by many, from async code, sync code and threads alike."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable
from typing import Final

import anyio

from streamkit.errors import StreamCancelled

from ._lifecycle import Phase
from ._loop import Loop, Timer
from ._reason import Cancellation, Reason
from ._running import current_loop

logger = logging.getLogger("streamkit.cancel")

HISTORY_LIMIT: Final = 8  # later causes are kept for the reader of a log; a storm must not pile up

Listen = Callable[[Cancellation], object]


class Listener:
    """A registered callback; :meth:`remove` says whether it was still waiting."""

    __slots__ = ("_call", "_token")

    def __init__(self, token: CancelToken, call: Listen) -> None:
        self._token = token
        self._call: Listen | None = call

    def remove(self) -> bool:
        """Unregister. True when it had not been called and never will be."""
        return self._call is not None and self._token._remove(self)


class CancelToken:
    """What a holder may know about the cancel of its work: ask, raise or wait.

    A holder cannot cancel; that needs the :class:`CancelSource`. The three views are the same fact:
    ``token.cancelled``, ``token.raise_if_cancelled()`` and ``await token.wait()`` (or
    ``token.wait_in_thread()``). Reading is legal from any thread.
    """

    __slots__ = (
        "__weakref__",
        "_cancellation",
        "_deadline",
        "_finished",
        "_history",
        "_listeners",
        "_lock",
        "_loop",
        "_phase",
        "_threads",
    )

    def __init__(self, loop: Loop | None) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._cancellation: Cancellation | None = None
        self._history: tuple[Cancellation, ...] = ()
        self._finished = False
        self._listeners: dict[Listener, None] = {}
        self._phase: Phase | None = None
        self._deadline = math.inf
        self._threads: list[threading.Event] | None = None  # one for each thread that waits

    @property
    def cancelled(self) -> bool:
        """Whether the work was told to stop."""
        return self._cancellation is not None

    @property
    def cancellation(self) -> Cancellation | None:
        """The first cause, or None."""
        return self._cancellation

    @property
    def history(self) -> tuple[Cancellation, ...]:
        """Causes that came after the first one (at most eight)."""
        return self._history

    @property
    def finished(self) -> bool:
        """Whether the work ended by itself; it can then no longer be cancelled."""
        return self._finished

    @property
    def cancellable(self) -> bool:
        """Whether anybody could cancel it: False only for work outside any request or stream."""
        return self._loop is not None

    @property
    def has_listeners(self) -> bool:
        """Whether something hangs on it."""
        return bool(self._listeners)

    @property
    def deadline(self) -> float:
        """The instant, on the loop's clock, at which it will be cancelled; ``inf`` without one."""
        return self._deadline

    @property
    def phase(self) -> Phase | None:
        """What the work is doing, as far as its source was told."""
        return self._phase

    def remaining(self) -> float:
        """Seconds until the deadline, never negative; ``inf`` without one."""
        if self._loop is None or self._deadline == math.inf:
            return math.inf
        return max(0.0, self._deadline - self._loop.now())

    def raise_if_cancelled(self) -> None:
        """Raise when the work was told to stop; cheap enough for each turn of a loop.

        Raises:
            StreamCancelled: It was.
        """
        if self._cancellation is not None:
            raise StreamCancelled(self._cancellation)

    async def wait(self) -> Cancellation:
        """Return the cancellation once there is one.

        Cancellation:
            Stops waiting; leaves nothing behind.
        """
        event = anyio.Event()
        listener = self.add_listener(lambda _: event.set())
        try:
            await event.wait()
        finally:
            listener.remove()
        assert self._cancellation is not None
        return self._cancellation

    def wait_in_thread(self, timeout: float | None = None) -> bool:
        """Block the calling thread until the cancel; True when it came within ``timeout`` seconds.

        Never call it in the event loop's own thread: the loop could not cancel anything meanwhile.
        """
        woken = threading.Event()
        with self._lock:
            if self._cancellation is not None:
                return True
            if self._loop is not None:
                self._threads = [*(self._threads or ()), woken]
        if self._loop is None:
            return woken.wait(timeout)
        # A virtual clock stands still while a thread works; this one now waits for the loop.
        self._loop.thread_parked()
        if woken.wait(timeout):
            return True
        with self._lock:
            waiting = self._threads or []
            late = woken not in waiting
            if not late:
                waiting.remove(woken)
                self._loop.thread_started()
        return late

    def add_listener(self, call: Listen) -> Listener:
        """Have ``call(cancellation)`` run once, in the loop's thread, in the turn of the cancel.

        Listeners run in the order of registration. If the cancel is there already, ``call`` runs at
        once. It must not block and must not raise; an error is logged and the others still run.
        """
        listener = Listener(self, call)
        if self._loop is None:
            return listener  # nobody can cancel it: keeping callbacks for ever would be a leak
        with self._lock:
            late = self._cancellation
            if late is None:
                self._listeners[listener] = None
        if late is not None:
            if self._loop.is_current():
                _tell([listener], late)
            else:
                _later(self._loop, lambda: _tell([listener], late))
        return listener

    def child(self, *others: CancelToken) -> CancelSource:
        """Return a source of its own that is cancelled when this token, or another, is."""
        return CancelSource(self, *others)

    def __repr__(self) -> str:
        state = self._cancellation or ("finished" if self._finished else "open")
        return f"<CancelToken {state}>"

    # -- the source's side ---------------------------------------------------------------------

    def _write(self, cancellation: Cancellation) -> list[Listener] | None:
        """Return those to be told; None if it is not the first cause, or there is no work left."""
        with self._lock:
            if self._finished:
                return None
            if self._cancellation is not None:  # the first cause wins
                self._history = (*self._history, cancellation)[:HISTORY_LIMIT]
                return None
            self._cancellation = cancellation
            listeners, self._listeners = list(self._listeners), {}
            threads, self._threads = self._threads, None
            for woken in threads or ():
                assert self._loop is not None
                self._loop.thread_started()
                woken.set()
        return listeners

    def _finish(self) -> bool:
        with self._lock:
            if self._cancellation is not None:
                return False
            self._finished = True
            self._listeners.clear()
            return True

    def _remove(self, listener: Listener) -> bool:
        with self._lock:
            return self._listeners.pop(listener, self) is None


class CancelSource:
    """The right to cancel one piece of work: whoever holds it may write the token, once.

    Cancelling, finishing and setting the phase are synchronous: two of them never interleave, so
    that either the work ended by itself or it was cancelled, never both.
    """

    __slots__ = ("_links", "_timer", "token")

    def __init__(self, *parents: CancelToken) -> None:
        loop, deadline = None, math.inf
        for parent in parents:
            loop = loop or parent._loop
            deadline = min(deadline, parent._deadline)
        self.token: CancelToken = CancelToken(loop or current_loop())
        self.token._deadline = deadline  # only shown: the parent's own timer cancels us
        self._timer: Timer | None = None
        self._links: list[Listener] = []
        for parent in parents:
            self._links.append(parent.add_listener(self._follow))
        if self.token._cancellation is not None:  # by a parent that was cancelled before
            self.close()

    @property
    def phase(self) -> Phase | None:
        """What the work is doing; recorded with a cancel."""
        return self.token._phase

    @phase.setter
    def phase(self, phase: Phase | None) -> None:
        self.token._phase = phase

    def cancel(
        self, reason: Reason, detail: str = "", *, cause: Cancellation | None = None
    ) -> bool:
        """Tell the work to stop. True when this was the first cause and the work had not ended.

        Legal from any thread, any number of times; never blocks, never raises. From the loop's own
        thread all listeners have run when it returns, else they run in the loop's next turn.
        """
        token = self.token
        record = Cancellation(reason, self._loop.now(), token._phase, detail, cause)
        listeners = token._write(record)
        if listeners is None:
            return False
        if self._loop.is_current():
            _tell(listeners, record)
            self.close()
        else:
            _later(self._loop, lambda: _tell(listeners, record))
            _later(self._loop, self.close)
        return True

    def cancel_after(self, seconds: float) -> None:
        """Cancel with reason ``deadline`` in ``seconds``; an earlier deadline stays in force."""
        self.cancel_at(self._loop.now() + seconds)

    def cancel_at(self, instant: float) -> None:
        """Cancel with reason ``deadline`` at that instant of the loop's clock; loop thread only."""
        token = self.token
        if instant >= token._deadline or token.cancelled or token.finished:
            return
        token._deadline = instant
        self._disarm()
        started = self._loop.now()
        if instant <= started:
            self._expire(0.0)
            return
        self._timer = self._loop.call_at(instant, lambda: self._expire(instant - started))

    def finish(self) -> bool:
        """The work ended by itself. False when it had been cancelled before.

        Afterwards nothing can cancel it, and the links to parents and timers are gone.
        """
        if not self.token._finish():
            return False
        self.close()
        return True

    def close(self) -> None:
        """Unlink from parents and timers; the token keeps what it knows."""
        if self._timer is not None:
            self._disarm()
        while self._links:
            self._links.pop().remove()

    @property
    def _loop(self) -> Loop:
        assert self.token._loop is not None
        return self.token._loop

    def _follow(self, parent: Cancellation) -> None:
        # Before it was told what it does, it does what its parent did.
        token = self.token
        record = parent.caused(at=self._loop.now(), phase=token._phase or parent.phase)
        listeners = token._write(record)
        if listeners is not None:
            _tell(listeners, record)
            self.close()

    def _expire(self, after: float) -> None:
        self.cancel(Reason.DEADLINE, f"the deadline of {after:.3g} s passed")

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        return f"<CancelSource of {self.token!r}>"


def _tell(listeners: list[Listener], cancellation: Cancellation) -> None:
    """Call each back, once; an error of one is logged and hurts no other."""
    for listener in listeners:
        call, listener._call = listener._call, None
        if call is None:
            continue
        try:
            call(cancellation)
        except Exception:
            logger.exception("a cancel listener failed: %r", call)


def _later(loop: Loop, call: Callable[[], object]) -> None:
    # The loop may be closed, and with it all that could have been stopped has gone.
    with contextlib.suppress(RuntimeError):
        loop.call_soon(call)


NEVER: Final = CancelToken(None)
"""What work has that nobody can cancel."""
