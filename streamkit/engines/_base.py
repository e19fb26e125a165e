"""What every engine looks like from above: open a generation, read, cancel, prove it stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum
from typing import Literal, Protocol, Self, runtime_checkable

from streamkit._core import Cancellation, CancelToken, Phase

from ._request import GenerationRequest


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was.

    Attributes:
        token: Its text.
        logprob: The logarithm of its probability.
        top: The likeliest tokens in its place, the likeliest first, as text and logarithm.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of output.

    Attributes:
        text: The piece as text.
        tokens: How many tokens it holds (a speculative step makes several).
        index: Which of ``n`` choices it belongs to.
        finish_reason: ``"stop"`` or ``"length"`` on the last chunk of its choice, else None.
        logprobs: Of each of its tokens, where that was asked for.
    """

    text: str
    tokens: int = 1
    index: int = 0
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class Proof(IntEnum):
    """How sure it is that an engine stopped: an ordered scale; nothing claims more than it has."""

    SENT = 1  # the abort was handed over
    CLOSED = 2  # the connection to the engine is closed
    ANSWERED = 3  # the engine's own last message says that it stopped
    FENCED = 4  # a round trip behind the abort came back on the same ordered channel
    OBSERVED = 5  # the engine's own books no longer hold the request
    JOINED = 6  # the thread or process that computed has returned

    @property
    def word(self) -> str:
        """The name on the wire."""
        return self.name.lower()


class Outcome(StrEnum):
    """How a generation ended, as far as is known."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    RUNNING = "running"  # not known to have ended: the wait for it timed out


class Misbehaviour(StrEnum):
    """How an engine broke its word about a cancel; the values are the words in logs and metrics.

    They name what was seen, not what the engine meant by it.
    """

    IGNORED = "ignored"  # it took the abort, said nothing, and goes on
    LOST = "lost"  # the first abort had no effect, the second one had
    RUNS_ON = "runs_on"  # it said that it stopped, and goes on
    LATE = "late"  # nothing came back within the bound, neither an answer nor a stop
    SILENT = "silent"  # it stopped, and never said so
    CRASHED = "crashed"  # it died between the cancel and the proof
    BLOCKED = "blocked"  # the event loop stood still between the cancel and the proof


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReport:
    """What is known of the end of a generation.

    Attributes:
        outcome: How it ended; ``running`` when no proof came in time.
        proof: The strongest proof of stop there is, or None. Being there is not being enough: an
            engine can answer, and run on.
        answered: Whether the engine's own last word to this request came.
        told_after: Seconds from the cancel to the abort being handed to the engine, or None.
        stopped_after: Seconds from the cancel to the proof, or None.
        tokens_made: Tokens that the engine says it made for this request in all, or None.
        tokens_after_cancel: Of those, made after the cancel, or None when the engine cannot tell.
        error: What the abort itself raised, or what the engine died of.
        steps: The rungs of the ladder that were needed: ``()``, ``("again",)``, … to ``"report"``.
        misbehaviour: What the engine is suspected of, or None.
    """

    outcome: Outcome
    proof: Proof | None = None
    answered: bool = False
    told_after: float | None = None
    stopped_after: float | None = None
    tokens_made: int | None = None
    tokens_after_cancel: int | None = None
    error: BaseException | None = None
    steps: tuple[str, ...] = ()
    misbehaviour: Misbehaviour | None = None

    @property
    def stopped(self) -> bool:
        """Whether the engine is known to work on it no longer."""
        return self.outcome is not Outcome.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The books of one generation, kept on streamkit's side of the engine.

    Attributes:
        prompt_tokens: Tokens of the prompt, once the engine said so (else 0).
        handed_over: Tokens given to the consumer of the iterator.
        discarded: Tokens that the engine made and the consumer never got: cut short, or late.
    """

    prompt_tokens: int = 0
    handed_over: int = 0
    discarded: int = 0

    @property
    def produced(self) -> int:
        """All tokens that came out of the engine."""
        return self.handed_over + self.discarded


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What is true of an engine; the conformance kit verifies each claim.

    What is left out is not claimed.

    Attributes:
        proof: The strongest proof of stop this engine can give.
        cancel_queued: A cancel takes a waiting request out of the engine's queue.
        cancel_prefill: Where a cancel can take effect inside prefill.
        extra_steps: Decode steps that a running request may still make after a cancel; None where
            that is not known.
        answers_cancel: When the engine says a last word to a cancelled request.
        early_cancel_safe: An abort that overtakes its request is not lost.
        fence: An ordered round trip can show that earlier aborts were handled.
        observes: The engine's own books can be read.
        backpressure: A slow reader makes the engine wait.
        thread_safe_cancel: The engine's own abort may be called from any thread
            (``Generation.cancel`` always may).
        kill: What ignores an abort can be ended by force.
        takes: What of a :class:`GenerationRequest` it heeds beyond text, ``max_tokens`` and ``n``:
            ``"messages"``, ``"prompt_ids"``, ``"stop"``, and the names in :class:`Sampling`.
    """

    proof: Proof
    cancel_queued: bool = False
    cancel_prefill: Literal["none", "chunk", "layer", "node"] = "none"
    extra_steps: int | None = 1
    answers_cancel: Literal["always", "running", "never"] = "never"
    early_cancel_safe: bool = False
    fence: bool = False
    observes: bool = False
    backpressure: bool = False
    thread_safe_cancel: bool = False
    kill: bool = False
    takes: frozenset[str] = frozenset()

    def as_json(self) -> dict[str, bool | int | str | list[str] | None]:
        """The claims as plain values, as ``GET /v1/engine`` shows them."""
        return {**asdict(self), "proof": self.proof.word, "takes": sorted(self.takes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """The engine's own books at one moment; counters run since its start.

    Attributes:
        slots: Requests that can run at once.
        running: Sequences in a slot now.
        queued: Sequences waiting for one.
        steps: Steps made.
        tokens: Tokens made (decode), for everyone.
        quarantined: Slots that streamkit no longer trusts, because no proof of stop came.
        misbehaviours: How often the engine broke its word about a cancel, and how.
    """

    slots: int
    running: int
    queued: int
    steps: int
    tokens: int
    quarantined: int = 0
    misbehaviours: Mapping[Misbehaviour, int] = field(default_factory=dict[Misbehaviour, int])


class Generation(Protocol):
    """One request to an engine: an async iterator of chunks with one consumer."""

    @property
    def request_id(self) -> str: ...
    @property
    def phase(self) -> Phase:
        """Queued, prefill, decode, aborting, or how it ended."""
        ...

    @property
    def cancellation(self) -> Cancellation | None:
        """The first cancel, or None."""
        ...

    @property
    def usage(self) -> Usage: ...
    @property
    def limit(self) -> int | None:
        """Tokens that it may make, of all choices together; None when the engine does not say."""
        ...

    def __aiter__(self) -> Self: ...

    def __anext__(self) -> Awaitable[Chunk]:
        """The next piece; the first call submits the request.

        Does not suspend when a piece is there already.

        After a cancel the iterator ends (``StopAsyncIteration``) within one wake-up, whether the
        engine answers or not; ``cancellation`` tells such an end from a whole one.

        Raises:
            EngineFailed: The engine broke; its own error is the ``__cause__``.
            RequestRefused: It has no room, and said so when the request was submitted.

        Cancellation:
            Implies ``cancel()``: the engine is told to abort.
        """
        ...

    def cancel(self, cancellation: Cancellation) -> bool:
        """Have the engine told to abort; True for the call that did.

        Legal in any state, from any thread, any number of times; never blocks, never raises. Once
        the generation has ended it does nothing.
        """
        ...

    async def wait_stopped(self, timeout: float | None = None) -> StopReport:
        """Wait for the engine's end of it and say what proves it; never cancels by itself.

        Cancellation:
            Stops waiting; nothing is changed.
        """
        ...

    async def abort_again(self) -> None:
        """Send the abort once more: the ladder's first rung."""
        ...

    async def kill(self) -> bool:
        """End it by force, where the engine can; False where it cannot."""
        ...

    async def aclose(self) -> None:
        """Cancel if it still runs, and release the iterator; does not wait for the proof.

        Legal while another task waits in ``__anext__``.
        """
        ...


@runtime_checkable
class Loads(Protocol):
    """An engine that has to load something before it can generate."""

    async def load(self) -> None:
        """Return when it can; does nothing the second time.

        Raises:
            Exception: It cannot; the message says why.
        """
        ...


PhaseListener = Callable[[Phase], object]


class Engine(Protocol):
    """Something that generates."""

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def failure(self) -> BaseException | None:
        """What it died of, or None: a dead engine refuses every request at once."""
        ...

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
            token: The cancel token it hangs on; None takes ``current_token()``. When it is
                cancelled, the generation is, in the same turn of the event loop.
            on_phase: Told of each phase the generation enters, as it enters it.

        Raises:
            ValueError: This engine could never serve such a request, however long it waited;
                :class:`UnsupportedOption` when it does not have what is asked for.
            UsageBug: A request with this id is in flight.
        """
        ...

    def statistics(self) -> EngineStatistics | None:
        """The engine's own books, or None when it cannot tell."""
        ...

    def quarantine(self, generation: Generation) -> None:
        """Count its slot as lost until the engine proves, however late, that it stopped."""
        ...

    def notice(self, misbehaviour: Misbehaviour) -> None:
        """Count a broken word, for ``statistics()``."""
        ...

    async def aclose(self) -> None:
        """Stop the engine and everything it runs. Idempotent."""
        ...
