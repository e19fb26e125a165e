"""What the conformance kit found out about an engine: trials, claims, findings, as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from streamkit.engines import Capabilities, Proof

from ._plan import Pace


@dataclass(slots=True, kw_only=True)
class Trial:
    """One generation that was left.

    Attributes:
        phase: When.
        way: How.
        reader_ended: Seconds from the cancel to the end of its reader; None where nobody read.
        stopped: Seconds from the cancel to the proof that the engine stopped; None without one.
        proof: What proved it, or None.
        told: Whether the engine had to be told.
        answered: Whether it said a last word.
        tokens_after: Tokens that it made after the cancel, or None.
        canary: Seconds to the first token of a one-token request right after the cancel, or None.
    """

    phase: str
    way: str
    reader_ended: float | None = None
    stopped: float | None = None
    proof: Proof | None = None
    told: bool = False
    answered: bool = False
    tokens_after: int | None = None
    canary: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that was broken.

    Attributes:
        claim: Which: a field of ``Capabilities``, or ``cancel``, ``reader``, ``stop``, ``abort``,
            ``canary``, ``books``, ``idle``, ``loop``, ``neighbour``, ``leak``, ``alive``, ``death``
        seen: What was seen, with numbers.
        trials: In which trials, as ``phase/way``; empty where it was in none.
    """

    claim: str
    seen: str
    trials: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = ", ".join(self.trials[:4])
        more = len(self.trials) - 4
        if more > 0:
            where += f" and {more} more"
        return f"{self.claim}: {self.seen}" + (f" [{where}]" if where else "")


@dataclass(slots=True, kw_only=True)
class EngineReport:
    """What was found out about an engine; ``print(report)`` shows all of it.

    Attributes:
        engine: Its name.
        capabilities: What it claims.
        pace: How fast it is when it is idle; None when it did not even answer.
        trials: Every generation that was left.
        findings: Promises that it broke.
        verified: Claims that were seen to be true, by the name of the field.
        told: Claims that are smaller than what was seen, and other remarks.
        unverified: Claims that could not be seen, and why.
        cancels: How many cancels the search for leaks made.
    """

    engine: str
    capabilities: Capabilities
    pace: Pace | None = None
    trials: list[Trial] = field(default_factory=list[Trial])
    findings: list[Finding] = field(default_factory=list[Finding])
    verified: dict[str, str] = field(default_factory=dict[str, str])
    told: list[str] = field(default_factory=list[str])
    unverified: dict[str, str] = field(default_factory=dict[str, str])
    cancels: int = 0

    @property
    def passed(self) -> bool:
        """Whether no promise was broken."""
        return not self.findings

    def raise_if_failed(self) -> None:
        """Raise AssertionError, with the whole report, when a promise was broken."""
        if not self.passed:
            raise AssertionError(f"\n{self}")

    def broke(self, claim: str) -> bool:
        """Whether there is a finding about it."""
        return any(finding.claim == claim for finding in self.findings)

    def find(self, claim: str, seen: str, trial: Trial | None = None) -> None:
        """Add a finding; the same one from several trials is one, with what was seen first."""
        where = () if trial is None else (f"{trial.phase}/{trial.way}",)
        for index, known in enumerate(self.findings):
            if known.claim == claim and trial is not None and known.trials:
                self.findings[index] = Finding(claim, known.seen, known.trials + where)
                return
        self.findings.append(Finding(claim, seen, where))

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "engine": self.engine,
            "passed": self.passed,
            "capabilities": self.capabilities.as_json(),
            "pace": None if self.pace is None else asdict(self.pace),
            "trials": [
                {**asdict(trial), "proof": trial.proof and trial.proof.word}
                for trial in self.trials
            ],
            "findings": [asdict(finding) for finding in self.findings],
            "verified": dict(self.verified),
            "told": list(self.told),
            "unverified": dict(self.unverified),
            "cancels": self.cancels,
        }

    def __str__(self) -> str:
        return "\n".join(
            [
                self._headline(),
                *self._pace_lines(),
                *self._trial_lines(),
                *_section("claims seen to be true", _pairs(self.verified)),
                *_section("could not be seen", _pairs(self.unverified)),
                *_section("remarks", self.told),
                *_section("BROKEN", [str(finding) for finding in self.findings]),
            ]
        )

    def _headline(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        counts = f"{len(self.trials)} trials, {self.cancels} cancels in the search for leaks"
        return f"engine {self.engine}: {verdict}, {counts}"

    def _pace_lines(self) -> list[str]:
        if self.pace is None:
            return []
        first, step = _ms(self.pace.first_token), _ms(self.pace.step)
        long = _ms(self.pace.long_first_token)
        return [f"idle: first token {first} ms, then one each {step} ms; long prompt {long} ms"]

    def _trial_lines(self) -> list[str]:
        if not self.trials:
            return []
        head = ("phase", "way", "reader ms", "stopped ms", "proof", "tokens after", "canary ms")
        rows = [head, *map(_row, self.trials)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        return ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)]


def _row(trial: Trial) -> tuple[str, ...]:
    return (
        trial.phase,
        trial.way,
        _ms(trial.reader_ended),
        _ms(trial.stopped),
        "-" if trial.proof is None else trial.proof.word,
        "-" if trial.tokens_after is None else str(trial.tokens_after),
        _ms(trial.canary),
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def _pairs(claims: dict[str, str]) -> list[str]:
    return [f"{name}: {what}" for name, what in claims.items()]


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []
