"""What an adapter is given of one generation: what to do, and how to say what the engine says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from streamkit._core import Cancellation

from ._base import Proof
from ._request import GenerationRequest

Abort: TypeAlias = Callable[[], Awaitable[object] | object]


class Told(Protocol):
    """Whom a job tells: the run behind it."""

    engine_id: str
    request: GenerationRequest
    request_id: str
    max_tokens: int | None
    made: int | None

    @property
    def cancellation(self) -> Cancellation | None: ...
    def know_abort(self, abort: Abort | None, drain: float) -> None: ...
    def registered(self) -> None: ...
    def count_prompt(self, tokens: int) -> None: ...
    def started(self) -> None: ...
    def proved(self, proof: Proof) -> None: ...


class Job:
    """One generation, seen from its adapter. Belongs to the loop's thread, except where noted."""

    __slots__ = ("_run",)

    def __init__(self, run: Told) -> None:
        self._run = run

    @property
    def id(self) -> str:
        """The id to give to the engine: never used before, and as long as every other.

        Not the caller's: an engine that matches ids by prefix would end ``job-10`` with ``job-1``.
        """
        return self._run.engine_id

    @property
    def request_id(self) -> str:
        """The caller's id, for logs."""
        return self._run.request_id

    @property
    def request(self) -> GenerationRequest:
        """What to generate."""
        return self._run.request

    @property
    def max_tokens(self) -> int | None:
        """Tokens of each choice at most; the engine's default where nothing was asked."""
        return self._run.max_tokens

    @property
    def cancelled(self) -> bool:
        """Whether it is to stop. Any thread: long steps of blocking code ask it."""
        return self._run.cancellation is not None

    @property
    def made(self) -> int | None:
        """Tokens that the engine itself says it made for it; None where it does not say.

        Set it where the engine counts, as soon as it counts; any thread.
        """
        return self._run.made

    @made.setter
    def made(self, tokens: int) -> None:
        self._run.made = tokens

    def registered(self, abort: Abort | None = None, *, drain: float = 0.0) -> None:
        """The engine knows the request: from now on an abort finds it, and a cancel waits no more.

        Call it as early as that is true. Where it is not called, the first chunk counts. Called
        again, it changes how a cancel from then on is done.

        Args:
            abort: Tells the engine to abort; sync or async, and may be called again if nothing
                shows that it worked. None where closing the iterator is all there is to do.
            drain: Seconds to go on reading after the abort, for the engine's last word; then the
                iterator is closed. With 0 it is closed first, and the abort follows.
        """
        self._run.know_abort(abort, drain)
        self._run.registered()

    def counted_prompt(self, tokens: int) -> None:
        """The engine said how many tokens the prompt has. Any thread."""
        self._run.count_prompt(tokens)

    def started(self) -> None:
        """It left the engine's queue. Where it is not called, the first chunk counts."""
        self._run.started()

    def proved(self, proof: Proof) -> None:
        """Something shows that the cancelled request stopped; nothing, if it was not cancelled."""
        self._run.proved(proof)

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self._run!r}>"
