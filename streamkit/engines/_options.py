"""Options of engines as a table: one place for their types, ranges, meanings and error messages."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

SHOWN: Final = 60  # characters of a wrong value that a message repeats


class Kind(Protocol):
    """What an option's value may be."""

    @property
    def expected(self) -> str:
        """In words, for messages: ``a whole number from 1 to 64``."""
        ...

    @abstractmethod
    def parse(self, text: str) -> object:
        """Return the value that a command line's text means; ValueError when it means none."""

    @abstractmethod
    def check(self, value: object) -> object:
        """Return the value if it is legal; ValueError when it is not."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in a range."""

    low: int
    high: int

    @property
    def expected(self) -> str:
        """In words."""
        return f"a whole number from {self.low} to {self.high}"

    def parse(self, text: str) -> int:
        """Return the number."""
        return self.check(int(text))

    def check(self, value: object) -> int:
        """Return the number if it is legal."""
        if type(value) is not int or not self.low <= value <= self.high:  # a bool is an int, too
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Real:
    """A number in a range; NaN and infinity are in no range."""

    low: float
    high: float

    @property
    def expected(self) -> str:
        """In words."""
        return f"a number from {self.low:g} to {self.high:g}"

    def parse(self, text: str) -> float:
        """Return the number."""
        return self.check(float(text))

    def check(self, value: object) -> float:
        """Return the number if it is legal."""
        if type(value) not in {int, float}:
            raise ValueError
        number = float(cast("float", value))
        if not (math.isfinite(number) and self.low <= number <= self.high):
            raise ValueError
        return number


@dataclass(frozen=True, slots=True)
class Switch:
    """Yes or no."""

    expected: str = "true or false"

    def parse(self, text: str) -> bool:
        """Return the boolean."""
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
            text.lower()
        ]

    def check(self, value: object) -> bool:
        """Return the boolean if it is one."""
        if value is True or value is False:
            return value
        raise ValueError


@dataclass(frozen=True, slots=True)
class Words:
    """Text that has a meaning of its own; ``understand`` raises ValueError when it has none."""

    expected: str
    understand: Callable[[str], object]

    def parse(self, text: str) -> str:
        """Return the text."""
        return self.check(text)

    def check(self, value: object) -> str:
        """Return the text if it means something."""
        text = str(value)
        self.understand(text)
        return text


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an engine.

    Attributes:
        name: As the command line and the constructor spell it.
        kind: What its value may be.
        default: What it is when nobody says anything; None is "not set".
        help: One line.
    """

    name: str
    kind: Kind
    default: object
    help: str

    def parse(self, text: str) -> object:
        """Return the value of a command line's text.

        Raises:
            ValueError: It is not what the option expects; says what that is.
        """
        try:
            return self.kind.parse(text.strip())
        except (ValueError, KeyError, OverflowError):
            raise self._wrong(text) from None

    def check(self, value: object) -> None:
        """Check a value from code.

        Raises:
            ValueError: It is not what the option expects; says what that is.
        """
        if value is None and self.default is None:
            return
        try:
            self.kind.check(value)
        except (ValueError, OverflowError):
            raise self._wrong(value) from None

    def _wrong(self, value: object) -> ValueError:
        shown = repr(value)
        if len(shown) > SHOWN:
            shown = f"{shown[:SHOWN]}…"
        return ValueError(f"option {self.name} must be {self.kind.expected}, got {shown}")


def check_options(options: Mapping[str, Option], **values: object) -> None:
    """Check values from code, by name.

    Raises:
        ValueError: One of them is not what its option expects.
    """
    for name, value in values.items():
        options[name].check(value)


def parse_options(
    engine: str, options: Mapping[str, Option], texts: Mapping[str, str]
) -> dict[str, object]:
    """Return the values of a command line's options.

    Raises:
        ValueError: An option is unknown, or its value is not what it expects.
    """
    known = ", ".join(sorted(options)) or "none"
    for name in texts:
        if name not in options:
            raise ValueError(f"engine {engine} has no option {name!r}; its options: {known}")
    try:
        return {name: options[name].parse(text) for name, text in texts.items()}
    except ValueError as error:
        raise ValueError(f"engine {engine}: {error}; its options: {known}") from None


# -- what several engines' options have in common ------------------------------------------------


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that ``text`` is; raises ValueError for anything else."""
    value: object = json.loads(text)
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    raise ValueError(text)


TEXT: Final = Words("a text", str)
LARGE: Final = Whole(1, 1 << 31)
JSON: Final = Words("a JSON object", json_object)
