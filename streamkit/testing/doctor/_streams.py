"""Whether bytes reach the client when the server sends them: plain, and compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from streamkit.testing._faults import Ask
from streamkit.testing.chaos._target import Target

from ._findings import Finding, State, shown, span
from ._hear import Heard, Pace, hear, pace_of
from ._patient import Patient

_FAST: Final = 0.3  # seconds: a stream that is over sooner tells nothing of its pace
_HELD: Final = 0.05  # seconds that a token may wait; a busy machine alone makes some of that
_HARDLY: Final = 1.5  # times as long as without the proxy: no more than noise
_ACCEPTS: Final = {"accept-encoding": "gzip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """The same stream, several times."""

    heard: Sequence[Heard]
    paces: Sequence[Pace]

    @property
    def held(self) -> float:
        return median(pace.held for pace in self.paces)

    @property
    def first(self) -> float:
        """Until the first event came: the best, for noise only ever adds."""
        return min(each.first_event_after or each.seconds for each in self.heard)

    @property
    def middle(self) -> Pace:
        """The run with the median."""
        return sorted(self.paces, key=lambda pace: pace.held)[len(self.paces) // 2]

    @property
    def broken(self) -> str:
        """What became of one that did not come whole."""
        return next((each.fault for each in self.heard if not each.answered), "")


async def buffering(patient: Patient) -> Finding:
    """Whether tokens wait in the proxy until there are more of them."""
    through, direct = await _runs(patient, {})
    return _judge("buffering", "buffering", patient, through, direct)


async def compression(patient: Patient) -> Finding:
    """The same for a client that takes compressed answers, as most do."""
    name = "compression"
    unasked = patient.sample.header("content-encoding")
    if unasked:
        evidence = f"it is compressed ({shown(unasked)}), though nobody asked for that"
        return Finding(name=name, state="fault", evidence=evidence, remedy=name)
    through, direct = await _runs(patient, _ACCEPTS)
    encoding = through.heard[0].header("content-encoding")
    if not encoding and not through.broken:
        return Finding(name=name, state="ok", evidence="a client that takes gzip gets it plain")
    finding = _judge(name, name, patient, through, direct)
    return replace(finding, evidence=f"{shown(encoding)}: {finding.evidence}")


async def _runs(patient: Patient, headers: dict[str, str]) -> tuple[_Runs, _Runs | None]:
    """Through the proxy and without it in turn, so that both have the same noise."""
    tokens = patient.tokens_for(patient.limits.stream)
    through: list[Heard] = []
    direct: list[Heard] = []
    for _ in range(patient.limits.repeat):
        through.append(await hear(_with(patient.through, tokens, headers)))
        if patient.direct is not None:
            direct.append(await hear(_with(patient.direct, tokens, headers)))
    return _as_runs(through, tokens), _as_runs(direct, tokens) if direct else None


def _with(target: Target, tokens: int, headers: dict[str, str]) -> Ask:
    ask = target.ask(0, tokens)
    return replace(ask, headers={**ask.headers, **headers})


def _as_runs(heard: Sequence[Heard], tokens: int) -> _Runs:
    return _Runs(heard=heard, paces=[pace_of(each, tokens) for each in heard])


def _judge(
    name: str, remedy: str, patient: Patient, through: _Runs, direct: _Runs | None
) -> Finding:
    if through.broken:
        evidence = f"an answer did not come whole: {through.broken}"
        return Finding(name=name, state="fault", evidence=evidence)
    pace, lasted = through.middle, median(each.seconds for each in through.heard)
    figures = {
        "held": round(through.held, 4),
        "first": round(through.first, 4),
        "bursts": pace.bursts,
        "tokens": pace.tokens,
        "longest_gap": round(pace.longest, 4),
        "largest": pace.largest,
        "direct_held": round(direct.held, 4) if direct else None,
        "direct_first": round(direct.first, 4) if direct else None,
    }
    evidence = (
        f"{pace.tokens} tokens in {lasted:.1f} s came in {pace.bursts} bursts, each waited "
        f"{span(through.held)} on average; longest gap {span(pace.longest)}, "
        f"largest burst {pace.largest:,} bytes"
    )
    if direct:
        evidence += f"; without the proxy {direct.middle.bursts} bursts, {span(direct.held)}"
    if lasted < _FAST:
        evidence = (
            f"{pace.tokens} tokens came within {span(lasted)}: too fast to see who waits for whom; "
            f"ask for more than {patient.limits.tokens} tokens with --max-tokens, or put a slower "
            "server behind the proxy"
        )
        return Finding(name=name, state="unknown", evidence=evidence, figures=figures)
    state, ours = _state(patient, through, direct)
    if state != "ok" and not ours:
        evidence += ": the server itself sends like that"
    elif state != "ok" and direct is None:
        evidence += " (if not the server itself sends like that: --backend tells)"
    return Finding(
        name=name,
        state=state,
        evidence=evidence,
        remedy=remedy if state != "ok" and ours else "",
        figures=figures,
    )


def _state(patient: Patient, through: _Runs, direct: _Runs | None) -> tuple[State, bool]:
    """How bad it is, and whether the proxy adds to it."""
    held, first = through.held, 0.0
    ours = True
    if direct is not None:
        first = through.first - direct.first
        ours = max(held - direct.held * _HARDLY, first) > _HELD
    worst = max(held, first)
    if worst <= _HELD:
        return "ok", ours
    return ("warning" if worst <= patient.limits.late else "fault"), ours
