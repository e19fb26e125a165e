"""How far an engine knows of a run, as a table: it decides what a cancel has to do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class RunState(StrEnum):
    """How far the engine knows of a run."""

    NEW = "new"  # not at all: a cancel keeps it from being submitted
    SUBMITTING = "submitting"  # on its way: an abort sent now could overtake it and be lost
    LIVE = "live"  # an abort finds it
    ENDING = "ending"  # told to abort, the proof is awaited
    ENDED = "ended"  # ended by itself, failed, or proved stopped


STATES: Final[Mapping[RunState, frozenset[RunState]]] = {
    RunState.NEW: frozenset({RunState.SUBMITTING, RunState.ENDED}),
    RunState.SUBMITTING: frozenset({RunState.LIVE, RunState.ENDED}),
    RunState.LIVE: frozenset({RunState.ENDING, RunState.ENDED}),
    RunState.ENDING: frozenset({RunState.ENDED}),
    RunState.ENDED: frozenset(),
}


def may_become(state: RunState, other: RunState) -> bool:
    """Whether the table has that step."""
    return other in STATES[state]
