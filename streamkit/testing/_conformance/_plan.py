"""What the conformance kit is told: prompts, bounds, and what it cannot find out by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from streamkit.engines import Engine

PHASES: Final = (
    "new",
    *(f"turn {number}" for number in (0, 1, 2, 3, 4, 5, 8, 12, 20)),
    "queued",
    "prefill",
    "first token",
    "decode",
    "last token",
    "after the end",
)
"""When a trial leaves: before it read, so many loop turns after it began to, …"""

WAYS: Final = ("cancel", "close", "task", "drop", "thread", "twice", "stall")
"""How: ``generation.cancel()``; ``aclose()`` while its reader waits; its reader's task cancelled;
its last reference goes; ``cancel()`` in another thread; two cancels; a cancel after a pause in
reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPlan:
    """How an engine is checked. The defaults fit an engine that makes a token in 1 to 50 ms.

    Attributes:
        prompt: A short one.
        long_prompt: One whose prefill takes many steps.
        answer_tokens: Tokens of an answer that is cancelled: enough that to ignore the cancel takes
            longer than all bounds together, and more than a slow reader makes the engine keep.
        bound: Seconds from the cancel to the proof that it stopped.
        wake_bound: Seconds from the cancel to the end of the reader.
        canary_factor: How much slower than on the idle engine a one-token request right after a
            cancel may be; ``canary_slack`` seconds come on top.
        canary_slack: See there.
        block_limit: Seconds that the engine may keep the event loop from running.
        cancels: How many generations the search for leaks cancels.
        patience: Seconds that the kit waits for anything at all.
        slots: Requests that the engine runs at once; None asks its statistics, and takes one where
            it has none.
        phases: Those of :data:`PHASES` to leave in.
        ways: Those of :data:`WAYS` to leave by.
        seed: Decides the moments at which the search for leaks cancels.
        restarts: How often the factory is asked for another engine after one died or hung.
        die: Ends the engine by force, as a crash would: every reader must get ``EngineFailed``.
        untried: Options of ``Capabilities.takes`` that a stand-in for the engine does not have.
        registries: Sizes of the engine's own books by name, to be the same after the cancels.
    """

    prompt: str = "one two three four"
    long_prompt: str = "word " * 4_000
    answer_tokens: int = 500
    bound: float = 1.0
    wake_bound: float = 0.25
    canary_factor: float = 3.0
    canary_slack: float = 0.1
    block_limit: float = 0.25
    cancels: int = 200
    patience: float = 60.0
    slots: int | None = None
    phases: tuple[str, ...] = PHASES
    ways: tuple[str, ...] = WAYS
    seed: int = 0
    restarts: int = 3
    untried: tuple[str, ...] = ()
    die: Callable[[Any], Awaitable[object] | object] | None = None
    registries: Callable[[Any], Mapping[str, int]] | None = None

    def __post_init__(self) -> None:
        for name, known in (("phases", PHASES), ("ways", WAYS)):
            if unknown := set(getattr(self, name)) - set(known):
                raise ValueError(f"unknown {name}: {sorted(unknown)}; known: {', '.join(known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the engine is when nobody else is there, in seconds.

    Attributes:
        first_token: From the request to its first token.
        step: From a token to the next.
        long_first_token: The first, for the long prompt.
        tokens_per_step: Tokens that came in one piece, at most.
        text: What it says to the prompt, if it says the same twice.
    """

    first_token: float
    step: float
    long_first_token: float
    tokens_per_step: int
    text: str | None


def slots_of(engine: Engine, plan: CheckPlan) -> int:
    """How many requests fill the engine."""
    if plan.slots is not None:
        return plan.slots
    statistics = engine.statistics()
    return 1 if statistics is None else statistics.slots
