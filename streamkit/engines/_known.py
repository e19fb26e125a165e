"""What is known of an engine before it is made: its package, its options, what a cancel does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ._base import Capabilities, Engine
from ._optional import is_installed
from ._options import Option

_PREFILL: Final = {
    "none": "runs to its end",
    "chunk": "ends at the next chunk",
    "layer": "ends at the next layer",
    "node": "ends at the next operation",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEngine:
    """An engine that :func:`build` can make; nothing of the engine itself is imported for it.

    Attributes:
        name: What ``--engine`` calls it.
        make: Makes it; its options are the keywords.
        options: Its options by name.
        capabilities: What is true of it with its usual options. One that has loaded may claim more:
            a chat template, for example, is the model's.
        package: What its adapter imports; "" where it needs nothing.
        install: The command that installs that.
        cannot: What is not possible with it, and why not.
    """

    name: str
    make: Callable[..., Engine]
    options: Mapping[str, Option]
    capabilities: Capabilities
    package: str = ""
    install: str = ""
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def installed(self) -> bool:
        """Whether it can be made here."""
        return not self.package or is_installed(self.package)

    @property
    def reach(self) -> dict[str, str]:
        """In words, what becomes of a cancelled request in each phase, and what proves its end."""
        can = self.capabilities
        return {
            "queue": "leaves it" if can.cancel_queued else "waits for its turn",
            "prefill": _PREFILL[can.cancel_prefill],
            "decode": _decode(can.extra_steps),
            "proof": can.proof.word,
        }

    def as_json(self) -> dict[str, object]:
        """All of it as plain values, as ``streamkit engines --json`` shows them."""
        return {
            "name": self.name,
            "installed": self.installed,
            "install": self.install or None,
            "reach": self.reach,
            "capabilities": self.capabilities.as_json(),
            "cannot": dict(self.cannot),
            "options": list(self.options),
        }


def _decode(extra_steps: int | None) -> str:
    if extra_steps is None:
        return "is not known"
    if extra_steps == 0:
        return "ends at once"
    return f"{extra_steps} more step{'s' * (extra_steps > 1)} at most"
