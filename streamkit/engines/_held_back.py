"""The end of a growing text that may turn out to be a stop string, and then be no part of it."""

from __future__ import annotations


class HeldBack:
    """How much of a text is certain, where an engine takes out a stop string once it is whole.

    Args:
        stop: The texts, none of them empty.
    """

    __slots__ = ("_starts",)

    def __init__(self, stop: tuple[str, ...]) -> None:
        # One look for all of them: most texts end in none.
        self._starts = tuple({text[:end] for text in stop for end in range(1, len(text))})

    def certain(self, text: str) -> int:
        """Return how many of its characters are certain."""
        if not (self._starts and text.endswith(self._starts)):
            return len(text)
        return len(text) - max(len(start) for start in self._starts if text.endswith(start))
