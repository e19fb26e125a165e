"""Whether, and how late, the server hears that its client has left: in each phase, in two ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, Final

from streamkit.testing._faults import Ask
from streamkit.testing.chaos._alone import Limits as ChaosLimits
from streamkit.testing.chaos._crowd import Together

from ._endpoint import unary
from ._findings import Finding, State, span
from ._patient import SHORT, Patient
from ._witness import Left

WAYS: Final = {"fin": "FIN", "rst": "RST"}
_BURST: Final = 8  # clients
_SOON: Final = 0.3  # seconds from a request to the leave, where nothing else decides
_BEFORE_IT_WENT: Final = 0.8  # of the time for which a half-closed client stays
_SILENCE: Final = 1.0  # seconds of it, at least, if a leave shall be timed in it


async def streaming(patient: Patient) -> Finding:
    """A client that leaves while its answer streams."""
    name = "leave: streaming"
    if patient.witness is None:
        return await _by_canary(patient, name)
    ask = patient.through.ask(0, patient.outlasting)
    return await _leaves(patient, name, ask, patient.streaming_after)


async def first_byte(patient: Patient) -> Finding:
    """A client that leaves before the first byte of a stream."""
    name = "leave: no byte yet"
    if patient.witness is None:
        return _unseen(patient, name)
    silent = await patient.silent(patient.limits.within + _SILENCE, SHORT)
    if silent is None or silent[1] < _SILENCE:
        evidence = (
            "no prompt keeps this server silent for a second; to a proxy it is the same as "
            "`leave: one answer`"
        )
        return Finding(name=name, state="unknown", evidence=evidence)
    finding = await _leaves(patient, name, silent[0], _SOON)
    return replace(finding, evidence=f"{finding.evidence}, in a silence of {span(silent[1])}")


async def one_answer(patient: Patient) -> Finding:
    """A client that leaves while it waits for an answer in one piece."""
    name = "leave: one answer"
    if patient.witness is None:
        return _unseen(patient, name)
    ask = unary(patient.through.ask(0, patient.outlasting))
    if ask is None:
        evidence = "not known how to ask for an answer in one piece: the request has no `stream`"
        return Finding(name=name, state="unknown", evidence=evidence)
    return await _leaves(patient, name, ask, _SOON)


async def half_close(patient: Patient) -> Finding:
    """A client that says it sends no more, and goes on reading."""
    name, within = "half-close", patient.limits.within
    if patient.witness is None:
        return _unseen(patient, name)
    ask = patient.through.ask(0, patient.outlasting)
    left = await patient.leave(ask, "half_close", patient.streaming_after, stay=within)
    if left.how in {"failed", "never came", "ended before"}:
        return Finding(name=name, state="unknown", evidence=_why_not(patient, [left]))
    # Otherwise it is told when such a client has really gone, which is after all of the bound.
    after = left.after or 0.0
    taken = left.how == "told" and after < within * _BEFORE_IT_WENT
    meaning = (
        f"it is taken for a leave, after {span(after)}: such a client gets no answer"
        if taken
        else "it is not taken for a leave: such a client gets its answer"
    )
    looks_whole = taken and left.seen.complete
    if looks_whole:
        meaning += ", and what it has by then ends as if that were all"
    figures = {"taken_for_a_leave": taken, "looks_whole": looks_whole}
    return Finding(name=name, state="ok", evidence=meaning, figures=figures)


async def _leaves(patient: Patient, name: str, ask: Ask, after: float) -> Finding:
    """Leave in both ways, as often as is asked for."""
    lefts: dict[str, list[Left]] = {}
    for way in WAYS:
        lefts[way] = [await patient.leave(ask, way, after) for _ in range(patient.limits.repeat)]
    states = [_state(patient, each) for each in lefts.values()]
    every = [left for each in lefts.values() for left in each]
    if "unknown" in states:
        evidence = _why_not(patient, every)
        return Finding(name=name, state="unknown", evidence=evidence, figures=_figures(lefts))
    state: State = "fault" if "fault" in states else "warning" if "warning" in states else "ok"
    evidence = "; ".join(f"{WAYS[way]} {_told(patient, each)}" for way, each in lefts.items())
    remedy = "leave" if state != "ok" else ""
    if state != "ok" and patient.direct is not None and await _is_own(patient, ask, after):
        evidence, remedy = f"{evidence}; without the proxy it is the same: the server's doing", ""
    elif state != "ok" and patient.direct is None:
        evidence += " (if it is not the server's doing: --backend tells)"
    return Finding(
        name=name, state=state, evidence=evidence, remedy=remedy, figures=_figures(lefts)
    )


async def _is_own(patient: Patient, ask: Ask, after: float) -> bool:
    """Whether the server does not hear of it without the proxy either."""
    assert patient.direct is not None
    ask = replace(ask, url=patient.direct.url)
    for way in WAYS:
        left = await patient.leave(ask, way, after)
        if _state(patient, [left]) != "ok":
            return True
    return False


def _state(patient: Patient, lefts: Sequence[Left]) -> State:
    hows = Counter(left.how for left in lefts)
    seen = hows["told"] + hows["ran on"]
    if not seen:  # what never came may also have been forgotten: no proof that all is well
        return "unknown"
    if hows["ran on"] * 2 > seen:
        return "fault"
    late = median([left.after or 0.0 for left in lefts if left.how == "told"] or [0.0])
    return "warning" if hows["ran on"] or late > patient.limits.late else "ok"


def _told(patient: Patient, lefts: Sequence[Left]) -> str:
    hows = Counter(left.how for left in lefts)
    told = [left.after or 0.0 for left in lefts if left.how == "told"]
    parts: list[str] = []
    if told:
        parts.append(f"told after {span(median(told))} ({len(told)} of {len(lefts)})")
    if hows["ran on"]:
        late = [left.after for left in lefts if left.how == "ran on" and left.after is not None]
        when = f", but after {span(median(late))}" if late else ", never"
        bound = f"within {patient.limits.within:g} s"
        parts.append(f"not told {bound}{when} ({hows['ran on']} of {len(lefts)})")
    if hows["never came"]:
        parts.append(f"the request was not passed on ({hows['never came']} of {len(lefts)})")
    return ", ".join(parts)


def _figures(lefts: Mapping[str, Sequence[Left]]) -> Mapping[str, Any]:
    return {
        way: [
            {
                "how": left.how,
                "after": None if left.after is None else round(left.after, 4),
                "phase": left.phase,
            }
            for left in each
        ]
        for way, each in lefts.items()
    }


def _why_not(patient: Patient, lefts: Sequence[Left]) -> str:
    errors = [left.seen.error for left in lefts if left.seen.error]
    if errors:
        return f"the request was not answered: {errors[0]}"
    if any(left.how == "ended before" for left in lefts):
        return (
            f"the answer had ended by itself; ask for more than {patient.limits.tokens} tokens "
            "with --max-tokens, or put a slower server behind the proxy"
        )
    return "the server never showed the request: it was not passed on, or is forgotten at once"


def _unseen(patient: Patient, name: str) -> Finding:
    evidence = f"nobody sees when the server hears of it: {patient.blind}"
    return Finding(name=name, state="unknown", evidence=evidence)


async def _by_canary(patient: Patient, name: str) -> Finding:
    """Nobody tells: whether a short request waits for others that have left."""
    limits = ChaosLimits(stop=patient.limits.within, stay=0.0)
    long = patient.outlasting
    burst = await Together(patient.through, None, limits, long=long, expected=None).burst(_BURST)
    figures = {"idle": burst.idle, "loaded": burst.loaded, "after": burst.after}
    if not burst.felt:
        evidence = (
            f"nobody sees when the server hears of it: {patient.blind}; and a short request was no "
            f"slower beside {burst.clients} others"
        )
        return Finding(name=name, state="unknown", evidence=evidence, figures=figures)
    after = "not at all" if burst.after is None else f"in {span(burst.after)}"
    evidence = (
        f"a short request took {span(burst.idle)}; once {burst.clients} others had left, it was "
        f"answered {after}"
    )
    state: State = "ok" if burst.relieved else "fault"
    remedy = "" if burst.relieved else "leave"
    return Finding(name=name, state=state, evidence=evidence, remedy=remedy, figures=figures)
