"""One request's time in a slot: it ends when all that was begun there has ended."""

from __future__ import annotations

from ._slots import Slots
from ._work import Work


class Tenure:
    """The work that one request does in a slot it was granted.

    Attributes:
        work: What runs there; pieces are begun on it.
        open: Whether more may begin.
        over: Whether the slot was given back.
    """

    __slots__ = ("_quarantined", "_slots", "open", "over", "work")

    def __init__(self, slots: Slots, outer: Work) -> None:
        self._slots = slots
        self._quarantined = False
        self.work: Work = Work(outer)
        self.open: bool = True
        self.over: bool = False

    def seal(self) -> None:
        """Nothing more begins: the slot is free as soon as what runs there has ended."""
        if self.open:
            self.open = False
            self.work.when_idle(self._give_back)

    def quarantine(self) -> None:
        """Its work was given up: the slot counts as lost until that ends after all."""
        self._quarantined = True
        self._slots.quarantined += 1

    def _give_back(self) -> None:
        self._slots.quarantined -= self._quarantined
        self.over = True
        self._slots.give_back()

    def __repr__(self) -> str:
        state = "open" if self.open else "over" if self.over else "ending"
        return f"<Tenure {state} {self.work!r}>"
