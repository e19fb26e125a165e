"""The drivers for asynchronous engines: by id, handle, connection and call are one pump."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import TypeVar

import anyio

from streamkit.errors import EngineFailed

from ._adapter import EngineBase
from ._base import Capabilities, Chunk, EngineStatistics, Proof
from ._job import Job
from ._ladder import LadderLimits
from ._opening import Opening
from ._pumped import PumpedRun
from ._request import GenerationRequest

E = TypeVar("E", bound=BaseException)


class AsyncEngine(EngineBase):
    """An adapter for an engine that is called from the event loop; it has to say how to read it.

    Write :meth:`stream`, and what the capabilities claim: :meth:`fence`, :meth:`is_gone` and
    :meth:`statistics`, :meth:`kill`. Everything else is here: one task owns the iterator of each
    generation, a cancel that comes too early is delivered when the engine knows the request, the
    reader ends at once, the abort and what follows it are held, shielded and limited in time.

    The four asynchronous drivers differ in what ``stream()`` says once the engine has the request:

    ========== ======================================================== =========================
    driver     ``job.registered(…)``                                    a cancel then
    ========== ======================================================== =========================
    by id      ``lambda: engine.abort(job.id)``                         closes, aborts, fences
    handle     ``handle.abort, drain=1.0``                              aborts, reads on, closes
    connection nothing                                                  closes
    call       ``call.cancel, drain=1.0``                               cancels, reads on, closes
    ========== ======================================================== =========================

    Args:
        name: Its name in logs, metrics and ``GET /v1/engine``.
        capabilities: What is true of it; ``streamkit.testing.check_engine`` verifies each claim.
        limits: How long the ladder waits for a proof of stop.

    Attributes:
        closing_proves: What it shows that the iterator is closed. ``JOINED`` where all computing is
            done inside of it.
        default_max_tokens: Tokens of an answer when the request names no limit; None leaves it to
            the engine.
    """

    closing_proves: Proof = Proof.CLOSED
    default_max_tokens: int | None = None

    def __init__(
        self, name: str, capabilities: Capabilities, limits: LadderLimits | None = None
    ) -> None:
        super().__init__(name, limits)
        self._capabilities = capabilities
        self._failure: BaseException | None = None
        self._closed = False

    # -- what an adapter adds ------------------------------------------------------------------

    @abstractmethod
    def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        """Submit ``job`` and yield what the engine makes of it: an async generator.

        It runs in a task of its own, which reads it to the end or closes it. The last chunk of each
        choice has a finish reason: what ends without one counts as broken.

        Raises:
            RequestRefused: There is no room.
            Exception: Anything else is a failure of this request. When the engine itself is dead,
                ``raise self.died(error)``.

        Cancellation:
            A cancel of the generation ends it at its ``await`` with the event loop's cancellation,
            once; its ``finally`` may await. One that comes to its end by itself at that moment may
            be struck in its ``finally`` instead.
        """

    def check(self, request: GenerationRequest) -> None:
        """Raise ValueError when the engine could never serve such a request."""

    async def fence(self) -> None:
        """Return when the engine has handled every abort that was sent before."""
        raise NotImplementedError(f"{type(self).__name__} claims a fence and has none")

    async def is_gone(self, job_id: str) -> bool:
        """Whether the engine's own books no longer hold the request."""
        raise NotImplementedError(f"{type(self).__name__} claims to observe and does not")

    async def kill(self, job_id: str) -> bool:
        """End a request by force, past an engine that ignores its abort; False if it cannot."""
        return False

    def statistics(self) -> EngineStatistics | None:
        """The engine's own books; None when it cannot tell. See :meth:`books`."""
        return None

    async def aclose(self) -> None:
        """Cancel everything, wait until it has ended, a ladder's length at most. Idempotent.

        An adapter that owns its engine ends that afterwards.

        Cancellation:
            Stops waiting; everything is cancelled all the same.
        """
        self._closed = True
        self._cancel_all(f"engine {self.name} is closing")
        with anyio.move_on_after(self.limits.total):
            for run in self._runs.in_flight():
                await run.wait_stopped()

    # -- what an adapter uses ------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What is true of it."""
        return self._capabilities

    @property
    def failure(self) -> BaseException | None:
        """What it died of, or None."""
        return self._failure

    def check_alive(self) -> None:
        """Raise EngineFailed when nothing more can be submitted."""
        if (failure := self.failure) is not None:
            raise EngineFailed(f"engine {self.name} is dead: {failure}") from failure
        if self._closed:
            raise EngineFailed(f"engine {self.name} is closed")

    def died(self, error: E) -> E:
        """The engine is dead: all readers get ``error``, and new requests are refused with it.

        Returns:
            The error, to be raised.
        """
        if self._failure is None:
            self._failure = error
        for run in self._runs.in_flight():
            if isinstance(run, PumpedRun):
                run.engine_died(error)
        return error

    def books(
        self, *, slots: int, running: int, queued: int, steps: int, tokens: int
    ) -> EngineStatistics:
        """The engine's counts, and what streamkit knows of it besides."""
        return EngineStatistics(
            slots=slots,
            running=running,
            queued=queued,
            steps=steps,
            tokens=tokens,
            quarantined=sum(1 for _ in self._runs.quarantined),
            misbehaviours=self._runs.broken_words,
        )

    def _make_run(self, opening: Opening) -> PumpedRun:
        self.check(opening.request)
        return PumpedRun(opening, self._runs, self)
