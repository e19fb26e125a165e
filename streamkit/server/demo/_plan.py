"""Who comes when, asks for what, and leaves how: the traffic of a demo, decided by its seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle
from typing import Final

from streamkit._core import Phase

FEWEST, DEFAULT, MOST = 12, 40, 200
"""Clients: with fewer no phase could be filled, more would not be served within a minute."""

PREFILL_PER_STEP: Final = 512
PREFILL_STEPS: Final = 30  # of a prompt whose client leaves in prefill: long enough to be met there
GAP: Final = 1.2  # seconds in which all arrive who do not come at once
ANSWER: Final = 90  # tokens that a chat client who leaves had asked for
LONG_ANSWER: Final = 180  # of one who gets it all at once or not at all, and gives up waiting
KEPT_ANSWER: Final = (50, 100)  # of one who stays
BLOCKING_ANSWER: Final = 40_000  # of one who reads none of them: more than all buffers hold


class Leave(StrEnum):
    """How a client goes."""

    FIN = "fin"
    RST = "rst"
    HALF_CLOSE = "half-close"
    STOP_READING = "stop reading"


class Aim(StrEnum):
    """When a client means to leave."""

    STAY = "stays"
    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"
    WHOLE = "not streaming"
    SLOW = "slow step"
    STALLED = "stalled reader"


EXPECTED: Final[Mapping[Aim, Phase]] = {
    Aim.QUEUED: Phase.QUEUED,
    Aim.PREFILL: Phase.PREFILL,
    Aim.DECODE: Phase.DECODE,
    Aim.WHOLE: Phase.DECODE,
    Aim.SLOW: Phase.DECODE,
    Aim.STALLED: Phase.SENDING,
}
"""The phase in which the server's books must say that such a request was cut short."""


class Scene(StrEnum):
    """An engine, and what is asked of it."""

    CHAT = "chat"
    SLOW = "slow"
    STALLED = "stalled"


STEP_MS: Final[Mapping[Scene, int]] = {Scene.CHAT: 20, Scene.SLOW: 400, Scene.STALLED: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One client.

    Attributes:
        id: Its request's id.
        scene: Which engine it asks.
        aim: When it leaves.
        leave: How, or None for one that stays to the end.
        first: It comes at once. All others come when the first of their scene have slots.
        after: Seconds from then until it comes.
        prompt_tokens: Words in its prompt.
        max_tokens: Tokens that it asks for.
        stream: Whether it asks for a stream.
        events: Events that it reads before it leaves.
        pause: Seconds from the last of them until it leaves: into the step that follows.
        tokens: Tokens that the engine must have made for it before it leaves; None where the
            request's phase decides.
    """

    id: str
    scene: Scene
    aim: Aim
    leave: Leave | None
    first: bool = True
    after: float
    prompt_tokens: int = 8
    max_tokens: int
    stream: bool = True
    events: int = 0
    pause: float = 0.0
    tokens: int | None = None

    @property
    def prompt(self) -> str:
        """Words; the id among them, so that no two answers are alike."""
        return self.id + " word" * (self.prompt_tokens - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The traffic of one run, and the engines that it needs."""

    visits: tuple[Visit, ...]
    engines: Mapping[Scene, Mapping[str, float]]

    def of(self, aim: Aim) -> list[Visit]:
        """The clients with that aim."""
        return [visit for visit in self.visits if visit.aim is aim]


_SHARES: Final[Mapping[Aim, int]] = {  # of 40; the rest stays
    Aim.QUEUED: 5,
    Aim.PREFILL: 5,
    Aim.DECODE: 6,
    Aim.WHOLE: 4,
    Aim.SLOW: 4,
    Aim.STALLED: 4,
}
_WAYS: Final[Mapping[Aim, tuple[Leave, ...]]] = {
    Aim.STALLED: (Leave.RST, Leave.STOP_READING),
    # A client that asked for one answer and said that it will send no more may well be waiting for
    # it; servers take that for leaving all the same (uvicorn does), so it is counted with them.
    **dict.fromkeys(_SHARES.keys() - {Aim.STALLED}, (Leave.FIN, Leave.RST, Leave.HALF_CLOSE)),
}


def make_plan(clients: int, seed: int) -> Plan:
    """Return the traffic of so many clients; the same for the same seed."""
    dice = random.Random(seed)  # noqa: S311 - traffic, no secret
    counts = _counts(clients)
    slots = max(3, clients // 8)
    ids = (f"demo-{seed}-{number:03}" for number in range(clients))
    visits = [
        *_chat(counts, slots, ids, dice),
        *_slow(counts[Aim.SLOW], ids, dice),
        *_stalled(counts[Aim.STALLED], ids),
    ]
    return Plan(visits=tuple(visits), engines=_engines(visits, slots, seed))


def _counts(clients: int) -> Counter[Aim]:
    counts = Counter({aim: max(2, clients * share // 40) for aim, share in _SHARES.items()})
    for aim in (Aim.SLOW, Aim.WHOLE, Aim.PREFILL, Aim.QUEUED):
        if counts.total() > clients * 5 // 6:  # somebody has to stay
            counts[aim] = max(1, clients * _SHARES[aim] // 40)
    counts[Aim.STAY] = clients - counts.total()
    return counts


def _engines(visits: list[Visit], slots: int, seed: int) -> dict[Scene, dict[str, float]]:
    at_once = Counter(visit.scene for visit in visits)
    return {
        Scene.CHAT: {
            "slots": slots,
            "step_ms": STEP_MS[Scene.CHAT],
            "prefill_tokens_per_step": PREFILL_PER_STEP * max(1, slots // 5),
            "seed": seed,
        },
        Scene.SLOW: {
            "slots": at_once[Scene.SLOW],
            "step_ms": STEP_MS[Scene.SLOW],
            "seed": seed,
        },
        # Many tokens a step: a reader that stalls is noticed when all buffers are full, and with
        # one token every 20 ms that takes longer than anybody wants to watch.
        Scene.STALLED: {
            "slots": at_once[Scene.STALLED],
            "step_ms": STEP_MS[Scene.STALLED],
            "speculative": 64,
            "seed": seed,
        },
    }


def _chat(counts: Counter[Aim], slots: int, ids: Iterator[str], dice: random.Random) -> list[Visit]:
    """The first take all slots and keep them for a while; the others come when they have them."""
    # Some who stay must come later: only they can gain from what others leave.
    staying = max(min(slots, counts[Aim.STAY] // 2), slots - counts[Aim.DECODE])
    first = [Aim.STAY] * staying + [Aim.DECODE] * (slots - staying)
    rest = Counter({a: counts[a] for a in (Aim.STAY, Aim.DECODE, Aim.PREFILL, Aim.WHOLE)})
    later = list((rest - Counter(first)).elements())
    dice.shuffle(later)
    later = [Aim.QUEUED] * counts[Aim.QUEUED] + later
    ways = {aim: cycle(_WAYS[aim]) for aim in _SHARES}
    times = [None] * len(first) + [GAP * i / len(later) for i in range(len(later))]
    return [
        _chat_visit(aim, next(ids), at, next(ways[aim]) if aim in ways else None, dice)
        for aim, at in zip(first + later, times, strict=True)
    ]


def _chat_visit(
    aim: Aim, id_: str, after: float | None, leave: Leave | None, dice: random.Random
) -> Visit:
    prefill = PREFILL_PER_STEP * PREFILL_STEPS if aim is Aim.PREFILL else 8
    return Visit(
        id=id_,
        scene=Scene.CHAT,
        aim=aim,
        leave=leave,
        first=after is None,
        after=after or 0.0,
        prompt_tokens=prefill,
        max_tokens=_answer(aim, dice),
        stream=aim is not Aim.WHOLE,
        events=dice.randint(20, 40) if aim is Aim.DECODE else 0,
        tokens=dice.randint(5, 40) if aim is Aim.WHOLE else None,
    )


def _answer(aim: Aim, dice: random.Random) -> int:
    if aim is Aim.STAY:
        return dice.randint(*KEPT_ANSWER)
    return LONG_ANSWER if aim is Aim.WHOLE else ANSWER


def _slow(count: int, ids: Iterator[str], dice: random.Random) -> list[Visit]:
    ways = cycle(_WAYS[Aim.SLOW])
    return [
        Visit(
            id=next(ids),
            scene=Scene.SLOW,
            aim=Aim.SLOW,
            leave=next(ways),
            after=dice.uniform(0, 0.4),
            max_tokens=10,
            events=dice.randint(1, 4),
            pause=dice.uniform(0.05, 0.3),
        )
        for _ in range(count)
    ]


def _stalled(count: int, ids: Iterator[str]) -> list[Visit]:
    ways = cycle(_WAYS[Aim.STALLED])
    return [
        Visit(
            id=next(ids),
            scene=Scene.STALLED,
            aim=Aim.STALLED,
            leave=next(ways),
            after=0.0,
            max_tokens=BLOCKING_ANSWER,
        )
        for _ in range(count)
    ]
