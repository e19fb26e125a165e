"""Who comes and does what, from a seed: the same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streamkit.testing._faults import Fault, draw_faults, fault_menu

from ._target import PROMPTS

STAYS: Final = Fault.parse("stay")
STAYS_BADLY: Final = frozenset({"stop_reading", "slow", "vanish", "half_close"})
NEEDS_THE_END: Final = frozenset({"last_byte", "after_end"})
NO_REQUEST: Final = frozenset({"connecting", "headers", "body"})
_MOST_PAUSE: Final = 0.02  # seconds between one client of a crowd and the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client of the crowd.

    Attributes:
        fault: What it does; ``stay`` for a survivor.
        prompt: The number of its prompt.
        pause: Seconds that it waits before it connects, once there is room for it.
    """

    fault: Fault
    prompt: int
    pause: float

    @property
    def stays(self) -> bool:
        """Whether it reads to the end."""
        return self.fault.way == STAYS.way


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of a run that is decided before it.

    Attributes:
        seed: Of all dice.
        cells: Faults that are tried one by one.
        clients: of the crowd.
        burst: Clients that are dropped all at once.
    """

    seed: int
    cells: tuple[Fault, ...]
    clients: tuple[Client, ...]
    burst: int


def make_plan(
    seed: int, clients: int, concurrency: int, *, faults: Sequence[Fault], over: Sequence[str]
) -> Plan:
    """Draw a plan.

    Args:
        seed: Of the dice.
        clients: In the crowd; half of them stay.
        concurrency: How many are there at a time, and in the burst.
        faults: What to try; empty: the menu, and for the crowd whatever there is.
        over: ``tls``, ``h2``, where the server has them.
    """
    dice = random.Random(f"crowd {seed}")  # noqa: S311 - dice, no secrets
    drawn = draw_faults(seed, clients, among=faults or None)
    stay = [number % 2 == 0 for number in range(clients)]
    dice.shuffle(stay)
    return Plan(
        seed=seed,
        cells=tuple(faults) or fault_menu(over=over),
        clients=tuple(
            Client(
                fault=STAYS if stays else fault,
                prompt=dice.randrange(len(PROMPTS)),
                pause=round(dice.uniform(0, _MOST_PAUSE), 4),
            )
            for stays, fault in zip(stay, drawn, strict=True)
        ),
        burst=concurrency,
    )
