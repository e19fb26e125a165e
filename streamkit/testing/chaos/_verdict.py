"""What a run says about the server: a few sentences, each good, bad, or not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ._alone import Cell, Limits
from ._crowd import Burst, Crowd
from ._plan import Plan

Word: TypeAlias = Literal["good", "bad", "unknown"]
_BAD_CELLS = {"ran on": "did not stop", "failed": "was not answered"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One sentence.

    Attributes:
        name: What was looked at.
        word: How it was.
        detail: The figures.
    """

    name: str
    word: Word
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that a run found.

    Attributes:
        url: What was tested.
        plan: What was to be done.
        limits: How long things were allowed to take.
        again: The command line that does the same again.
        began_at: The loop's clock at the start; all instants are on it.
        ended_at: The same at the end.
        control: Whether a client that stays is seen running; None: the server has no counters.
        same: Whether the same prompt had the same answer twice.
        wrong: What grew that must not, by name; None: the server says nothing of that.
        looks_failed: How often its counters could not be read.
    """

    url: str
    plan: Plan
    limits: Limits
    again: str
    began_at: float
    ended_at: float
    control: bool | None
    same: bool
    cells: tuple[Cell, ...]
    crowd: Crowd
    burst: Burst
    running: tuple[tuple[float, float], ...]
    wrong: Mapping[str, float] | None
    looks_failed: int

    @property
    def wasted(self) -> float | None:
        """Tokens made for clients of the cells after they had gone; None: the server says none."""
        told = [cell.tokens for cell in self.cells if cell.tokens is not None]
        return sum(told) if told else None


def judge(results: Results) -> list[Check]:
    """Every check, in the order in which a reader wants them."""
    return [
        _stopped(results),
        *_control(results),
        *_word(results),
        _survivors(results),
        *_rested(results),
        _burst(results.burst, results.control),
    ]


def is_good(checks: list[Check]) -> bool:
    """Whether nothing is bad, and it is known that the server stops."""
    words = {check.name: check.word for check in checks}
    return "bad" not in words.values() and words["stops"] == "good"


def _stopped(results: Results) -> Check:
    cells, burst = results.cells, results.burst
    states = Counter(cell.state for cell in cells)
    bad = [f"{c.fault} {_BAD_CELLS[c.state]}" for c in cells if c.state in _BAD_CELLS]
    bound = f"within {results.limits.stop:g} s"
    if bad:
        return Check(name="stops", word="bad", detail=f"{_list(bad)} {bound}")
    if results.control and states["stopped"]:
        slowest = max(cell.after or 0 for cell in cells if cell.state == "stopped")
        detail = (
            f"{states['stopped']} of {len(cells)} faults {bound}, the slowest in {slowest:.3f} s"
        )
        return Check(name="stops", word="good", detail=f"{detail}{_others(states)}")
    if results.control is None and burst.felt and burst.relieved:
        detail = f"a short request felt {burst.clients} others, and did not once they had gone"
        return Check(name="stops", word="good", detail=detail)
    if results.control is None and burst.felt:
        detail = f"{burst.clients} clients had gone, and a short request still waited for them"
        return Check(name="stops", word="bad", detail=detail)
    why = "it has no counters, and more load made a short request no slower"
    if results.control is not None:
        why = "a client that stayed was not seen running for so long: see `visible`"
    return Check(name="stops", word="unknown", detail=why)


def _others(states: Counter[str]) -> str:
    rest = [f"{count} {state}" for state, count in sorted(states.items()) if state != "stopped"]
    return f" ({', '.join(rest)})" if rest else ""


def _control(results: Results) -> Iterator[Check]:
    bound = results.limits.stop
    if results.control is True:
        detail = f"a client that stayed was seen running for {bound:g} s"
        yield Check(name="visible", word="good", detail=detail)
    elif results.control is False:
        detail = f"no answer lasts {bound:g} s: lower --stop-within, or the counters do not show it"
        yield Check(name="visible", word="unknown", detail=detail)


def _word(results: Results) -> Iterator[Check]:
    if results.wrong is None:
        return
    if results.wrong:
        named = {name.rpartition(".")[2]: value for name, value in results.wrong.items()}
        detail = ", ".join(f"{name} {value:g}" for name, value in named.items())
        yield Check(name="keeps its word", word="bad", detail=f"by its own count: {detail}")
    else:
        yield Check(name="keeps its word", word="good", detail="by its own count, always")


def _survivors(results: Results) -> Check:
    guests = results.crowd.guests
    stayed = [guest for guest in guests if guest.client.stays]
    broken = [guest for guest in stayed if not guest.whole]
    detail = f"{len(stayed) - len(broken)} of {len(stayed)} who stayed have their whole answer"
    if len(guests) < results.crowd.planned:
        detail += f"; {results.crowd.planned - len(guests)} clients did not come in time"
    if broken:
        first = broken[0]
        why = first.seen.error or (
            "another answer" if first.seen.complete else f"cut, status {first.seen.status}"
        )
        return Check(name="survivors", word="bad", detail=f"{detail}: {why}")
    if not stayed:
        return Check(name="survivors", word="unknown", detail="nobody stayed")
    if not results.same:
        detail += "; not compared, for the same prompt has different answers here"
    return Check(name="survivors", word="good", detail=detail)


def _rested(results: Results) -> Iterator[Check]:
    if results.control is None:
        return
    pairs = (("crowd", results.crowd.stop), ("burst", results.burst.stop))
    for name, stop in pairs:
        if stop is None:
            detail = f"requests still ran {results.limits.stop:g} s after the last client had gone"
            yield Check(name=f"rests after {name}", word="bad", detail=detail)
        else:
            yield Check(name=f"rests after {name}", word="good", detail=f"in {stop.after:.3f} s")


def _burst(burst: Burst, control: bool | None) -> Check:
    if burst.after is None:
        detail = f"a short request was not answered once {burst.clients} others had gone"
        return Check(name="serves again", word="bad", detail=detail)
    loaded = "not answered" if burst.loaded is None else f"{burst.loaded:.3f} s"
    detail = f"a short request: {burst.idle:.3f} s idle, {loaded} beside {burst.clients} others, "
    detail += f"{burst.after:.3f} s after them"
    late = burst.felt and not burst.relieved and control is None
    return Check(name="serves again", word="bad" if late else "good", detail=detail)


def _list(items: list[str], most: int = 4) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{', '.join(items[:most])}{more}"
