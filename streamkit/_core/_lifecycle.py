"""The life of a request as one table; the diagram in the docs is generated from it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from streamkit.errors import UsageBug


class Phase(StrEnum):
    """What a request is doing; the values are the words in logs, metrics and ``/v1/requests``."""

    READING = "reading"  # the request body is still arriving
    PREPROCESS = "preprocess"
    QUEUED = "queued"  # waiting for a slot
    PREFILL = "prefill"  # running, nothing produced yet
    DECODE = "decode"  # producing
    SENDING = "sending"  # produced, blocked in send() because the client reads slowly
    POSTPROCESS = "postprocess"
    ABORTING = "aborting"  # cancelled; the engine has not proved yet that it stopped
    FINISHED = "finished"  # ended by itself, answered whole
    CANCELLED = "cancelled"  # cut short, and the engine proved that it stopped
    FAILED = "failed"  # the work itself broke
    QUARANTINED = "quarantined"  # cut short, and the engine never proved that it stopped


class Event(StrEnum):
    """What can happen to a request."""

    PREPARE = "prepare"
    ENQUEUE = "enqueue"
    START = "start"
    TOKEN = "token"  # noqa: S105 - a word of the field, not a password
    BLOCK = "block"
    UNBLOCK = "unblock"
    POSTPROCESS = "postprocess"
    FINISH = "finish"
    CANCEL = "cancel"
    FAIL = "fail"
    PROVE = "prove"
    GIVE_UP = "give up"


_LEAVE: Final[Mapping[Event, Phase]] = {
    Event.FINISH: Phase.FINISHED,
    Event.CANCEL: Phase.ABORTING,
    Event.FAIL: Phase.FAILED,
}

TRANSITIONS: Final[Mapping[Phase, Mapping[Event, Phase]]] = MappingProxyType(
    {
        Phase.READING: {
            Event.PREPARE: Phase.PREPROCESS,
            Event.ENQUEUE: Phase.QUEUED,
            Event.START: Phase.PREFILL,
            **_LEAVE,
        },
        Phase.PREPROCESS: {Event.ENQUEUE: Phase.QUEUED, Event.START: Phase.PREFILL, **_LEAVE},
        Phase.QUEUED: {Event.START: Phase.PREFILL, **_LEAVE},
        Phase.PREFILL: {
            Event.TOKEN: Phase.DECODE,
            Event.POSTPROCESS: Phase.POSTPROCESS,
            **_LEAVE,
        },
        Phase.DECODE: {
            Event.TOKEN: Phase.DECODE,
            Event.BLOCK: Phase.SENDING,
            Event.POSTPROCESS: Phase.POSTPROCESS,
            **_LEAVE,
        },
        Phase.SENDING: {Event.UNBLOCK: Phase.DECODE, **_LEAVE},
        Phase.POSTPROCESS: {
            Event.TOKEN: Phase.POSTPROCESS,
            Event.BLOCK: Phase.SENDING,
            **_LEAVE,
        },
        # Engine proof can still come after we gave up (an engine that answers late).
        Phase.ABORTING: {Event.PROVE: Phase.CANCELLED, Event.GIVE_UP: Phase.QUARANTINED},
        Phase.QUARANTINED: {Event.PROVE: Phase.CANCELLED},
        Phase.FINISHED: {},
        Phase.CANCELLED: {},
        Phase.FAILED: {},
    }
)

LIVE: Final = frozenset(phase for phase, row in TRANSITIONS.items() if Event.CANCEL in row)
"""Phases in which a cancel can still cut the work short."""


def advance(phase: Phase, event: Event) -> Phase:
    """Return the phase that follows.

    Raises:
        UsageBug: The table has no such step; the caller's order of calls is wrong.
    """
    try:
        return TRANSITIONS[phase][event]
    except KeyError:
        allowed = ", ".join(TRANSITIONS[phase]) or "nothing, it has ended"
        raise UsageBug(f"a request in phase {phase} cannot {event}; it allows: {allowed}") from None


def diagram() -> str:
    """Return the table as a Mermaid state diagram (``docs/explanation/lifecycle.md`` holds it)."""
    edges: dict[tuple[Phase, Phase], list[str]] = {}
    for phase, row in TRANSITIONS.items():
        for event, target in row.items():
            edges.setdefault((phase, target), []).append(event)
    lines = [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in edges.items()]
    ends = [f"    {phase} --> [*]" for phase, row in TRANSITIONS.items() if not row]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {Phase.READING}", *lines, *ends])
