"""One request's time in a slot: it ends when all that was begun there has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from streamkit._core import Timer, current_loop

from ._slots import Slots
from ._work import Work

LOST_AFTER: Final = 60.0
# seconds; most threads that run on end by themselves, and those who wait for their slot are served
# then. One that has not by now is held for stuck.


class Tenure:
    """The work that one request does in a slot it was granted.

    Attributes:
        work: What runs there; pieces are begun on it.
        open: Whether more may begin.
        over: Whether the slot was given back.
    """

    __slots__ = ("_lost", "_quarantined", "_slots", "_timer", "open", "over", "work")

    def __init__(self, slots: Slots, outer: Work) -> None:
        self._slots = slots
        self._quarantined = False
        self._lost = False
        self._timer: Timer | None = None
        self.work: Work = Work(outer)
        self.open: bool = True
        self.over: bool = False

    def seal(self) -> None:
        """Nothing more begins: the slot is free as soon as what runs there has ended."""
        if self.open:
            self.open = False
            self.work.when_idle(self._give_back)

    def hold(self) -> Callable[[], None] | None:
        """Keep the slot until what this returns is called; None if it was given back."""
        return None if self.over else self.work.hold()

    def quarantine(self) -> None:
        """Its work was given up: the slot is quarantined, and lost in a while, until that ends."""
        self._quarantined = True
        self._slots.quarantined += 1
        loop = current_loop()
        self._timer = loop.call_at(loop.now() + LOST_AFTER, self._lose)

    def _lose(self) -> None:
        self._lost = True
        self._slots.lost += 1

    def _give_back(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._slots.quarantined -= self._quarantined
        self._slots.lost -= self._lost
        self.over = True
        self._slots.give_back()

    def __repr__(self) -> str:
        state = "open" if self.open else "over" if self.over else "ending"
        return f"<Tenure {state} {self.work!r}>"
