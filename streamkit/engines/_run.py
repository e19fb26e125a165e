"""One generation between its engine and its reader: how far it is, its cancel, and its end."""

from __future__ import annotations

import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from typing import Final, Protocol

from streamkit._core import (
    LIVE,
    Cancellation,
    Event,
    Listener,
    Loop,
    Phase,
    Reason,
    advance,
    current_loop,
    now,
)
from streamkit.errors import EngineFailed, StreamkitError, UsageBug

from ._base import Chunk, Outcome, Proof, StopReport, Usage
from ._evidence import Evidence
from ._opening import Opening
from ._outbox import Logprobs, Outbox
from ._state import RunState, may_become

logger = logging.getLogger("streamkit.engines")

_INSIDE: Final = frozenset({Phase.QUEUED, Phase.PREFILL, Phase.DECODE})


class Owner(Protocol):
    """What a run tells the engine that it belongs to."""

    @property
    def required_proof(self) -> Proof:
        """What it takes to believe that a cancelled run stopped."""
        ...

    def enter(self, run: EngineRun) -> None:
        """It is about to be submitted; UsageBug when its id is in flight."""

    def aborting(self, run: EngineRun) -> None:
        """It was cancelled, and the engine told if it can be: time to have it proved."""

    def leave(self, run: EngineRun) -> None:
        """It ended."""


class EngineRun(ABC):
    """A generation of an engine that pushes; everything but the engine's own calls.

    An adapter says how to submit, abort and kill, and reports what the engine says, all in the
    event loop's thread: :meth:`registered`, :meth:`started`, :meth:`output`, :meth:`answered`,
    :meth:`proved`, :meth:`failed`. Readers hold a handle, not the run: the engine and the token
    hold the run, and a handle that is dropped must be noticed.
    """

    __slots__ = (
        "__weakref__",
        "_cancellation",
        "_evidence",
        "_link",
        "_lock",
        "_loop",
        "_on_phase",
        "_outbox",
        "_owner",
        "_phase",
        "_prompt_tokens",
        "_state",
        "limit",
        "request_id",
        "token",
    )

    def __init__(self, opening: Opening, owner: Owner) -> None:
        self.request_id = opening.request_id
        self.token = opening.token
        asked = opening.request.max_tokens
        # An adapter that knows the engine's default sets it where nothing was asked.
        self.limit = None if asked is None else asked * opening.request.n
        self._on_phase = opening.on_phase
        self._owner = owner
        self._lock = threading.Lock()  # a cancel from a thread and the end exclude each other
        self._loop: Loop | None = None
        self._link: Listener | None = None
        self._state = RunState.NEW
        self._phase = Phase.QUEUED
        self._cancellation: Cancellation | None = None
        self._prompt_tokens = 0
        self._outbox = Outbox()
        self._evidence = Evidence()

    # -- what an adapter adds ------------------------------------------------------------------

    @abstractmethod
    def _submit(self) -> None:
        """Hand the request over, or start what will; never blocks.

        ``registered()`` must follow as soon as the engine knows the request.

        Raises:
            RequestRefused: There is no room.
        """

    @abstractmethod
    def _abort(self) -> None:
        """Tell the engine to abort, and have what it shows of that reported; never blocks."""

    @abstractmethod
    def _tokens_made(self) -> int | None:
        """What the engine says it made for this request, or None."""

    async def kill(self) -> bool:
        """End it by force; False where the engine has no such thing."""
        return False

    # -- what the engine says ------------------------------------------------------------------

    def registered(self, prompt_tokens: int = 0) -> None:
        """The engine knows the request: from now on an abort finds it."""
        if self._state is not RunState.SUBMITTING:
            return
        self._prompt_tokens = prompt_tokens
        self._enter(RunState.LIVE)
        if self._cancellation is not None:
            self._tell()

    def started(self) -> None:
        """It left the queue."""
        if self._phase is Phase.QUEUED:
            self._move(Event.START)

    def output(
        self,
        index: int,
        text: str,
        tokens: int,
        finish_reason: str | None,
        logprobs: Logprobs = (),
    ) -> None:
        """Tokens were made; after a cancel they are only counted."""
        if self._cancellation is not None:
            self._outbox.waste(tokens)
            return
        if self._phase is Phase.PREFILL:
            self._move(Event.TOKEN)
        self._outbox.put(index, text, tokens, finish_reason, logprobs)

    def answered(self) -> None:
        """The engine's last word: the end of a whole answer, or its reply to an abort."""
        self._evidence.answered = True
        with self._lock:
            if self._state is RunState.ENDED:
                return
            by_itself = self._cancellation is None
            if by_itself:
                self._enter(RunState.ENDED)  # in here: from now on no thread can cancel it
        if by_itself:
            self._evidence.strengthen(Proof.ANSWERED)
            self._settle(Outcome.FINISHED)
        else:
            self.proved(Proof.ANSWERED)

    def proved(self, proof: Proof) -> None:
        """A proof that a cancelled run stopped; it is believed when it is as strong as required."""
        if self._state is RunState.ENDED or self._cancellation is None:
            return
        self._evidence.strengthen(proof)
        if proof >= self._owner.required_proof:
            self._enter(RunState.ENDED)
            self._settle(Outcome.CANCELLED)

    def failed(self, error: BaseException, proof: Proof | None = None) -> None:
        """The engine broke, or refused; ``proof`` is what that proves of its end."""
        with self._lock:
            if self._state is RunState.ENDED:
                return
            self._enter(RunState.ENDED)
        self._evidence.error = error
        if proof is not None:
            self._evidence.strengthen(proof)
        self._settle(Outcome.FAILED)

    # -- what the reader does ------------------------------------------------------------------

    async def next(self) -> Chunk:
        """Return the next piece; see ``Generation.__anext__``."""
        if self._state is RunState.NEW:
            self._start()
        while not self._outbox:
            if self._state is RunState.ENDED or self._cancellation is not None:
                self._raise_end()
            try:
                await self._outbox.wait()
            except UsageBug:  # a second reader: the first one goes on
                raise
            except BaseException:
                self.cancel_for("the task that read it was cancelled")
                raise
        return self._outbox.take()

    def cancel(self, cancellation: Cancellation) -> bool:
        """Have the engine told; see ``Generation.cancel``."""
        with self._lock:
            if self._cancellation is not None or self._state is RunState.ENDED:
                return False
            self._cancellation = self._in_phase(cancellation)
        loop = self._loop
        if loop is None or loop.is_current():
            self._obey()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed, the engine's task gone
                loop.call_soon(self._obey)
        return True

    def cancel_for(self, why: str) -> bool:
        """Cancel on behalf of the reader, unless the token has a better cause."""
        at = now() if self._loop is None else self._loop.now()
        own = Cancellation(reason=Reason.REQUESTED, at=at, detail=why)
        return self.cancel(self.token.cancellation or own)

    def close(self) -> None:
        """The reader wants no more: cancel what still runs, drop what was not read."""
        self.cancel_for("closed before its end")
        self._outbox.clear()

    def drop(self) -> None:
        """The reader's handle is gone; legal from any thread, also from a garbage collection."""
        loop = self._loop
        if loop is None or self._state is RunState.ENDED or self._cancellation is not None:
            return
        # Never at once: a collection may have interrupted a function of this very object.
        with contextlib.suppress(RuntimeError):  # the loop is closed, nothing runs any more
            loop.call_soon(self._dropped)

    async def wait_stopped(self, timeout: float | None = None) -> StopReport:
        """Wait for the engine's end of it; see ``Generation.wait_stopped``."""
        await self._evidence.wait(timeout)
        return self.report()

    async def abort_again(self) -> None:
        """Send the abort once more, unless it has ended."""
        if self._state is not RunState.ENDED:
            self._abort()

    def give_up(self) -> bool:
        """No proof came: its slot is lost until one does. False when one has come meanwhile."""
        if self._phase is not Phase.ABORTING:
            return False
        self._move(Event.GIVE_UP)
        return True

    # -- what is known -------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Queued, prefill, decode, aborting, or how it ended."""
        return self._phase

    @property
    def cancellation(self) -> Cancellation | None:
        """The first cancel, or None."""
        return self._cancellation

    @property
    def usage(self) -> Usage:
        """The books of it."""
        return self._outbox.usage(self._prompt_tokens)

    def report(self) -> StopReport:
        """What is known of its end by now."""
        return self._evidence.report(self._cancellation, self._tokens_made())

    def __repr__(self) -> str:
        why = f" {self._cancellation}" if self._cancellation else ""
        return f"<{type(self).__name__} {self.request_id} {self._state}/{self._phase}{why}>"

    # -- decided here, synchronously -----------------------------------------------------------

    def _start(self) -> None:
        self._loop = current_loop()
        self._link = self.token.add_listener(self.cancel)  # at once, if it is cancelled already
        if self._cancellation is not None:
            return
        try:
            self._owner.enter(self)
        except UsageBug:
            self._unlink()
            raise
        self._enter(RunState.SUBMITTING)
        self._tell_phase()
        try:
            self._submit()
        except Exception as error:  # noqa: BLE001 - whatever the engine raises, the reader gets
            self.failed(error)

    def _obey(self) -> None:
        """Act on the cancel, in the loop's thread."""
        self._outbox.clear()
        if self._state is RunState.ENDED:  # a thread's cancel and the end crossed each other
            return
        self._move(Event.CANCEL)
        if self._state is RunState.NEW:
            self._enter(RunState.ENDED)
            self._evidence.strengthen(Proof.JOINED)  # nothing was ever started
            self._settle(Outcome.CANCELLED)
            return
        self._evidence.made_at_cancel = self._tokens_made()
        if self._state is RunState.LIVE:
            self._tell()
        if self._evidence.outcome is None:
            self._owner.aborting(self)
        self._outbox.wake()

    def _tell(self) -> None:
        assert self._loop is not None
        self._enter(RunState.ENDING)
        self._evidence.told_at = self._loop.now()
        self._evidence.strengthen(Proof.SENT)
        try:
            self._abort()
        except Exception as error:
            logger.exception("the abort of %s failed", self.request_id)
            self._evidence.abort_error = error

    def _settle(self, outcome: Outcome) -> None:
        """It is over, as far as the engine goes."""
        self._unlink()
        if self._cancellation is None:
            self._move(Event.FINISH if outcome is Outcome.FINISHED else Event.FAIL)
        else:
            if self._phase in LIVE:  # a thread's cancel that this loop has not heard of yet
                self._move(Event.CANCEL)
            self._move(Event.PROVE)
        self._owner.leave(self)
        self._evidence.conclude(outcome, self._loop.now() if self._loop else None)
        self._outbox.wake()

    def _in_phase(self, cancellation: Cancellation) -> Cancellation:
        """Its reader knows what comes before and behind the engine; of what is in it, we do."""
        inside = self._state is not RunState.NEW and cancellation.phase in _INSIDE
        return cancellation.seen_in(self._phase if inside else cancellation.phase or self._phase)

    def _unlink(self) -> None:
        if self._link is not None:
            self._link.remove()
            self._link = None

    def _raise_end(self) -> None:
        error = self._evidence.error
        if self._cancellation is not None or error is None:
            raise StopAsyncIteration
        if isinstance(error, StreamkitError):
            raise error
        raise EngineFailed(f"the engine failed on {self.request_id}: {error}") from error

    def _dropped(self) -> None:
        if self.cancel_for("dropped while it was running"):
            logger.warning(
                "generation %s was dropped while it was running, and is aborted; close it where "
                "you leave it: async with contextlib.aclosing(generation)",
                self.request_id,
            )

    def _enter(self, state: RunState) -> None:
        if not may_become(self._state, state):
            raise UsageBug(f"{self.request_id} cannot go from {self._state} to {state}")
        self._state = state

    def _move(self, event: Event) -> None:
        self._phase = advance(self._phase, event)
        self._tell_phase()

    def _tell_phase(self) -> None:
        if self._on_phase is None:
            return
        try:
            self._on_phase(self._phase)
        except Exception:
            logger.exception("a phase listener of %s failed", self.request_id)
