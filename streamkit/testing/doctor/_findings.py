"""What the doctor finds: one sentence for each thing that a proxy can do to a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

State: TypeAlias = Literal["ok", "warning", "fault", "unknown"]

_SHOWN: Final = 120  # characters
NEEDED: Final = frozenset({"buffering", "leave: streaming", "leave: one answer"})
"""Findings without which nothing is well: what cannot be seen is not good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence.

    Attributes:
        name: What was looked at.
        state: How it is; ``unknown``: it could not be found out.
        evidence: What was measured.
        remedy: What kind of setting changes it; empty: none is needed, or known.
        figures: The same for machines; seconds and bytes.
    """

    name: str
    state: State
    evidence: str
    remedy: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])


def shown(text: str) -> str:
    """What a server sent, fit for a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text[:_SHOWN])


def span(seconds: float) -> str:
    """A time for people."""
    if seconds < 0.01:
        return f"{seconds * 1_000:.1f} ms"
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing is wrong, and what matters most is known."""
    wrong = any(finding.state in {"warning", "fault"} for finding in findings)
    return not wrong and not any(
        finding.state == "unknown" and finding.name in NEEDED for finding in findings
    )
