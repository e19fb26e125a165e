"""What all adapters of ours share: opening, ids, which runs hang on which token, quarantine."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping

from streamkit._core import Cancellation, CancelToken, Reason, current_token, now
from streamkit.errors import UnsupportedOption, UsageBug

from ._base import (
    Capabilities,
    EngineStatistics,
    Generation,
    Misbehaviour,
    PhaseListener,
    Proof,
)
from ._generation import GenerationHandle
from ._ladder import LadderLimits, start_ladder
from ._request import GenerationRequest
from ._run import EngineRun, Opening


class EngineBase(ABC):
    """An engine of streamkit's own making; an adapter adds the engine's calls.

    Attributes:
        limits: How long the ladder waits for a proof of stop; read at each cancel.
    """

    def __init__(self, name: str, limits: LadderLimits | None = None) -> None:
        self.limits: LadderLimits = limits or LadderLimits()
        self._name = name
        self._runs = RunTable(self)

    @property
    def name(self) -> str:
        """Its name in logs, metrics and ``GET /v1/engine``."""
        return self._name

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What is true of it."""

    @property
    @abstractmethod
    def failure(self) -> BaseException | None:
        """What it died of, or None."""

    @abstractmethod
    def statistics(self) -> EngineStatistics | None:
        """The engine's own books, or None when it cannot tell."""

    @abstractmethod
    async def aclose(self) -> None:
        """Stop the engine and everything it runs. Idempotent."""

    @abstractmethod
    def _make_run(self, opening: Opening) -> EngineRun:
        """Return a run of it; ValueError when the engine could never serve the request."""

    def open(
        self,
        request: GenerationRequest,
        *,
        request_id: str | None = None,
        token: CancelToken | None = None,
        on_phase: PhaseListener | None = None,
    ) -> Generation:
        """Return a generation; submits nothing yet.

        Args:
            request: What to generate.
            request_id: The caller's id; unique among those in flight. None makes one.
            token: The cancel token it hangs on; None takes ``current_token()``.
            on_phase: Told of each phase the generation enters, as it enters it.

        Raises:
            ValueError: This engine could never serve such a request, however long it waited;
                :class:`UnsupportedOption` when it does not have what is asked for.
            UsageBug: A request with this id is in flight.
        """
        if missing := request.options - self.capabilities.takes:
            raise UnsupportedOption(min(missing), self.name)
        if request_id is not None:
            self._runs.check_free(request_id)
        opening = Opening(
            request=request,
            request_id=request_id or uuid.uuid4().hex,
            token=current_token() if token is None else token,
            on_phase=on_phase,
        )
        return GenerationHandle(self._make_run(opening))

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int | None = None,
        n: int = 1,
        request_id: str | None = None,
    ) -> Generation:
        """Open a generation on the current token: ``async for chunk in engine.generate("…")``.

        Raises:
            ValueError: This engine could never serve such a request.
            UsageBug: A request with this id is in flight.
        """
        request = GenerationRequest(prompt=prompt, max_tokens=max_tokens, n=n)
        return self.open(request, request_id=request_id)

    def abort_for(self, token: CancelToken, cancellation: Cancellation) -> None:
        """Cancel every generation that was opened under this token, and have each proved stopped.

        Generations under a child of it need no call: they hang on their own token, which is
        cancelled with its parent, in the same turn.
        """
        for run in self._runs.under(token):
            run.cancel(cancellation)

    def quarantine(self, generation: Generation) -> None:
        """Count its slot as lost until the engine proves, however late, that it stopped."""
        self._runs.quarantine(_run_of(generation))

    def notice(self, misbehaviour: Misbehaviour) -> None:
        """Count a broken word, for ``statistics()``."""
        self._runs.misbehaviours[misbehaviour] += 1

    def _cancel_all(self, why: str) -> None:
        for run in self._runs.in_flight():
            run.cancel(Cancellation(reason=Reason.DRAIN, at=now(), detail=why))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}: {self._runs!r}>"


class RunTable:
    """Which runs an engine has in flight; an entry is gone when its run has ended."""

    __slots__ = ("_by_id", "_by_token", "_engine", "_quarantined", "misbehaviours")

    def __init__(self, engine: EngineBase) -> None:
        self._engine = engine
        self._by_id: dict[str, EngineRun] = {}
        self._by_token: dict[CancelToken, dict[EngineRun, None]] = {}
        self._quarantined: dict[EngineRun, None] = {}
        self.misbehaviours: Counter[Misbehaviour] = Counter()

    @property
    def required_proof(self) -> Proof:
        """The strongest proof the engine can give: a weaker one is known, but not believed."""
        return self._engine.capabilities.proof

    @property
    def quarantined(self) -> Iterable[EngineRun]:
        """Runs that were given up and are not proved stopped yet."""
        return self._quarantined

    @property
    def broken_words(self) -> Mapping[Misbehaviour, int]:
        """How often which word was broken, as a copy."""
        return dict(self.misbehaviours)

    def check_free(self, request_id: str) -> None:
        """Raise UsageBug when the id is in flight."""
        if request_id in self._by_id:
            raise UsageBug(f"request id {request_id!r} is in flight in engine {self._engine.name}")

    def enter(self, run: EngineRun) -> None:
        """It is about to be submitted."""
        self.check_free(run.request_id)
        self._by_id[run.request_id] = run
        self._by_token.setdefault(run.token, {})[run] = None

    def aborting(self, run: EngineRun) -> None:
        """It was cancelled: have it proved."""
        start_ladder(GenerationHandle(run), self._engine, self._engine.limits)

    def leave(self, run: EngineRun) -> None:
        """It ended."""
        if self._by_id.get(run.request_id) is not run:
            return
        del self._by_id[run.request_id]
        siblings = self._by_token[run.token]
        del siblings[run]
        if not siblings:
            del self._by_token[run.token]
        self._quarantined.pop(run, None)

    def under(self, token: CancelToken) -> list[EngineRun]:
        """Runs that were opened with this token."""
        return list(self._by_token.get(token, ()))

    def in_flight(self) -> list[EngineRun]:
        """All of them."""
        return list(self._by_id.values())

    def quarantine(self, run: EngineRun) -> None:
        """Keep it in mind until it leaves."""
        if run.give_up():
            self._quarantined[run] = None

    def __repr__(self) -> str:
        return f"{len(self._by_id)} in flight, {len(self._quarantined)} quarantined"


def _run_of(generation: Generation) -> EngineRun:
    if isinstance(generation, GenerationHandle):
        return generation.run
    raise UsageBug(f"{generation!r} is no generation of this engine")
