"""What there is to do wrong, in two tables: ways and phases; and a fault, which is one of each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A way or a phase.

    Attributes:
        meaning: What the client does.
        unit: Of its number; None: it has none.
        default: Its number, if none is given; None: the visitor chooses.
        draws: Numbers that a drawn fault may have.
        over: What it needs below it: ``tls`` or ``h2``; empty: plain HTTP/1.1 does.
        phases: Names of the phases that a way can have; None: all.
    """

    meaning: str
    unit: str | None = None
    default: float | None = None
    draws: tuple[float, ...] = ()
    over: str = ""
    phases: frozenset[str] | None = None


_ON_A_STREAM: Final = frozenset({"body", "first_byte", "queued", "byte", "event", "after_end"})
_IN_THE_ANSWER: Final = frozenset({"first_byte", "queued", "byte", "event", "code_point"})
_BEFORE_THE_END: Final = _IN_THE_ANSWER | {"connecting", "headers", "body"}

FAULT_WAYS: Final[Mapping[str, Part]] = {
    "stay": Part(meaning="reads to the end, as it should", phases=frozenset({"after_end"})),
    "fin": Part(meaning="closes; over TLS, after close_notify"),
    "rst": Part(meaning="resets the connection"),
    "half_close": Part(meaning="says that it sends no more, and goes on reading"),
    "kill": Part(meaning="its process is killed"),
    "tls_cut": Part(meaning="closes without TLS's close_notify", over="tls"),
    "h2_reset": Part(meaning="sends RST_STREAM", over="h2", phases=_ON_A_STREAM),
    "h2_goaway": Part(meaning="sends GOAWAY, then closes", over="h2", phases=_ON_A_STREAM),
    "stop_reading": Part(
        meaning="stays, and neither reads nor sends again", phases=_BEFORE_THE_END
    ),
    "slow": Part(
        meaning="stays and reads slowly",
        unit="bytes/s",
        default=200,
        draws=(50, 200),
        phases=_IN_THE_ANSWER,
    ),
    "pipeline": Part(
        meaning="sends a second request before the first is answered, then closes",
        phases=_IN_THE_ANSWER,
    ),
    "vanish": Part(
        meaning="answers no packet any more, and sends none (Linux)", phases=_BEFORE_THE_END
    ),
    "storm": Part(
        meaning="resets, and comes back at once, again and again",
        unit="times",
        default=10,
        draws=(5, 10),
    ),
}
"""How a client goes, or stays badly."""

FAULT_PHASES: Final[Mapping[str, Part]] = {
    "connecting": Part(meaning="it has connected and sent nothing"),
    "headers": Part(meaning="so much of its request's head is sent; half of it", unit="bytes"),
    "body": Part(meaning="so much of its request's body is sent; half of it", unit="bytes"),
    "first_byte": Part(meaning="its request is sent, and it waits for no byte of the answer"),
    "queued": Part(
        meaning="it has waited so long after its request, whatever came meanwhile",
        unit="s",
        default=0.1,
        draws=(0.02, 0.1, 0.3),
    ),
    "byte": Part(
        meaning="so many bytes of the body came", unit="bytes", default=1, draws=(1, 40, 333)
    ),
    "event": Part(
        meaning="so many server-sent events came", unit="events", default=3, draws=(1, 3, 8)
    ),
    "code_point": Part(meaning="a part of a character came, and not the rest"),
    "last_byte": Part(meaning="all of the body but its last byte came"),
    "after_end": Part(meaning="the whole answer came, and the connection is kept alive"),
}
"""When it does it."""

DEFAULT_PHASE: Final = "event"
LEAVES: Final = ("fin", "rst", "half_close", "kill")
_ANSWERS: Final = ("stop_reading", "slow", "pipeline", "vanish")


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in one phase: ``rst@event:3``, ``slow:50@byte:100``; ``str()`` gives that back.

    Attributes:
        way: A name from ``FAULT_WAYS``.
        phase: A name from ``FAULT_PHASES``.
        amount: The way's number, in the table's unit; None where it has none.
        at: The phase's number, in the table's unit; None: it has none, or half of what there is.
    """

    way: str
    phase: str = DEFAULT_PHASE
    amount: float | None = None
    at: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``WAY[:NUMBER]@PHASE[:NUMBER]``.

        Raises:
            ValueError: It says none, or two that do not go together; the message names what does.
        """
        way_text, at, phase_text = text.partition("@")
        way, amount = _part(way_text, FAULT_WAYS, "way", text)
        fitting = FAULT_WAYS[way].phases
        usual = DEFAULT_PHASE if fitting is None or DEFAULT_PHASE in fitting else min(fitting)
        phase, number = _part(phase_text if at else usual, FAULT_PHASES, "phase", text)
        if fitting is not None and phase not in fitting:
            known = ", ".join(name for name in FAULT_PHASES if name in fitting)
            raise ValueError(f"{text!r}: {way} goes with {known}, not with {phase}")
        return cls(way, phase, amount, number)

    @property
    def over(self) -> str:
        """What it needs below it: ``tls``, ``h2``, or nothing in particular."""
        return FAULT_WAYS[self.way].over

    def __str__(self) -> str:
        return f"{_text(self.way, self.amount)}@{_text(self.phase, self.at)}"


def fault_menu(*, over: Iterable[str] = ()) -> tuple[Fault, ...]:
    """Every phase left by FIN and RST in turn, and every way once; for what ``over`` offers.

    Args:
        over: ``"tls"``, ``"h2"``, where the server has them.
    """
    offered = {"", *over}
    phases = [f"{LEAVES[number % 2]}@{phase}" for number, phase in enumerate(FAULT_PHASES)]
    ways = [way for way, part in FAULT_WAYS.items() if part.over in offered and way != "stay"]
    faults = [Fault.parse(text) for text in (*phases, *ways)]
    return tuple(dict.fromkeys(faults))


def draw_faults(
    seed: int, count: int, *, among: Sequence[Fault] | None = None
) -> tuple[Fault, ...]:
    """Draw faults; the same seed, count and menu give the same.

    Args:
        seed: Of the dice.
        count: How many.
        among: What to draw from; None: any leave in any phase, and those who stay badly.
    """
    dice = random.Random(f"faults {seed}")  # noqa: S311 - dice, no secrets
    return tuple(dice.choice(among) if among else _any(dice) for _ in range(count))


def _any(dice: random.Random) -> Fault:
    way = dice.choice((*LEAVES, *LEAVES, *_ANSWERS))
    phases = [name for name in FAULT_PHASES if name in (FAULT_WAYS[way].phases or FAULT_PHASES)]
    phase = dice.choice(phases)
    return Fault(
        way, phase, *(_draw(dice, part) for part in (FAULT_WAYS[way], FAULT_PHASES[phase]))
    )


def _draw(dice: random.Random, part: Part) -> float | None:
    return dice.choice(part.draws) if part.draws else part.default


def _part(text: str, known: Mapping[str, Part], what: str, whole: str) -> tuple[str, float | None]:
    name, colon, number = text.partition(":")
    if name not in known:
        raise ValueError(f"{whole!r}: {what} {name!r} is not one of {', '.join(known)}")
    part = known[name]
    if not colon:
        return name, part.default
    if part.unit is None:
        raise ValueError(f"{whole!r}: {name} takes no number")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    whole_numbers = part.unit not in {"s", "bytes/s"}
    if not 0 < value < 1e9 or (whole_numbers and value != int(value)):
        kind = "whole number" if whole_numbers else "number"
        raise ValueError(f"{whole!r}: {name} takes a {kind} of {part.unit} above 0, got {number!r}")
    return name, value


def _text(name: str, number: float | None) -> str:
    return name if number is None else f"{name}:{number:g}"
