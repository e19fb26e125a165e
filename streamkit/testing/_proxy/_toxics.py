"""The faults of a proxy, in one table; a toxic is one of them with its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self, TypeAlias

Stream: TypeAlias = Literal["upstream", "downstream"]
STREAMS: Final[tuple[Stream, ...]] = ("upstream", "downstream")
_ABOVE_ZERO: Final = frozenset({"rate", "average_size"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of toxic.

    Attributes:
        meaning: What it does to a connection.
        numbers: Its numbers and their defaults; None: must be given.
    """

    meaning: str
    numbers: Mapping[str, float | None]


TOXICS: Final[Mapping[str, Kind]] = {
    "latency": Kind(
        meaning="everything comes later, by `latency` ± `jitter` ms",
        numbers={"latency": None, "jitter": 0},
    ),
    "bandwidth": Kind(meaning="no more than `rate` kB/s", numbers={"rate": None}),
    "slow_close": Kind(meaning="its end comes `delay` ms later", numbers={"delay": None}),
    "timeout": Kind(
        meaning="nothing passes; after `timeout` ms it is closed, 0: never",
        numbers={"timeout": 0},
    ),
    "reset_peer": Kind(meaning="it is reset after `timeout` ms", numbers={"timeout": 0}),
    "slicer": Kind(
        meaning="pieces of `average_size` ± `size_variation` bytes, `delay` µs apart",
        numbers={"average_size": None, "size_variation": 0, "delay": 0},
    ),
    "limit_data": Kind(meaning="it is closed after `bytes` bytes", numbers={"bytes": None}),
}
"""Kinds of toxics, with toxiproxy's names and numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Toxic:
    """A fault that a proxy does to one direction of its connections.

    Attributes:
        kind: A name from ``TOXICS``.
        stream: ``downstream``: from the server to the client; ``upstream``: the other direction.
        toxicity: The part of all connections that have it, from 0 to 1.
        numbers: As in the table.
    """

    kind: str
    stream: Stream = "downstream"
    toxicity: float = 1.0
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``KIND[:NAME=NUMBER,…]``, as in ``latency:latency=100,jitter=20,stream=upstream``.

        Raises:
            ValueError: There is no such toxic; the message names what there is.
        """
        kind, _, rest = text.partition(":")
        if kind not in TOXICS:
            raise ValueError(f"{text!r}: toxic {kind!r} is not one of {', '.join(TOXICS)}")
        given = dict(_pairs(text, part) for part in rest.split(",") if part)
        stream = given.pop("stream", "downstream")
        if stream not in STREAMS:
            raise ValueError(f"{text!r}: stream is upstream or downstream, not {stream!r}")
        toxicity = _number(text, "toxicity", given.pop("toxicity", "1"))
        if toxicity > 1:
            raise ValueError(f"{text!r}: toxicity is from 0 to 1, not {toxicity:g}")
        numbers = _numbers(text, kind, given)
        return cls(kind=kind, stream=stream, toxicity=toxicity, numbers=numbers)

    def __str__(self) -> str:
        numbers = ",".join(f"{name}={value:g}" for name, value in self.numbers.items())
        return f"{self.kind}:{numbers},stream={self.stream},toxicity={self.toxicity:g}"


def _numbers(text: str, kind: str, given: Mapping[str, str]) -> Mapping[str, float]:
    known = TOXICS[kind].numbers
    for name in given:
        if name not in known:
            raise ValueError(f"{text!r}: {kind} takes {', '.join(known)}, not {name!r}")
    numbers = {name: _number(text, name, value) for name, value in given.items()}
    for name, default in known.items():
        if name not in numbers and default is None:
            raise ValueError(f"{text!r}: {kind} needs {name}=NUMBER")
        numbers.setdefault(name, default or 0.0)
        if name in _ABOVE_ZERO and not numbers[name]:
            raise ValueError(f"{text!r}: {name} must be above 0")
    return numbers


def _pairs(text: str, part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise ValueError(f"{text!r}: expected NAME=NUMBER, got {part!r}")
    return name.strip(), value.strip()


def _number(text: str, name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e12:
        raise ValueError(f"{text!r}: {name} takes a number from 0 on, got {value!r}")
    return number
