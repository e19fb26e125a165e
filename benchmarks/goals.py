"""The eight goals as one table, and whether the figures meet them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.figures import Figures, Summary
from benchmarks.peers import (
    BARE,
    ENGINE,
    FASTAPI,
    OUR_BYTES,
    OURS,
    RUNS_ON,
    SERVE,
    SERVE_SYNC,
    SHIPPED,
    SHIPPED_SYNC,
    SSE_STARLETTE,
    STARLETTE,
    TRUSS,
    TRUSS_SYNC,
)

Kind = Literal["×", "value", "more by"]

GOALS: Final = {
    1: "an async stream costs what bare ASGI costs",
    2: "a sync generator is ten times as fast, and stops",
    3: "leaving is noticed as fast as by hand",
    4: "idle streams cost nothing",
    5: "a request costs next to nothing",
    6: "cost grows in a line",
    7: "the whole system gains",
    8: "it starts at once",
}


@dataclass(frozen=True)
class Bound:
    """One line of the table.

    Attributes:
        goal: Which of the eight.
        figure: What is bounded.
        kind: A ratio to the other contender, a value of its own, or a difference.
        bound: As the goal says.
        least: Whether it is the least; else the most.
        other: Compared with whom.
        peer: Who has to meet it.
    """

    goal: int
    figure: str
    kind: Kind
    bound: float
    least: bool = False
    other: str = BARE
    peer: str = OURS

    @property
    def wanted(self) -> str:
        """In words."""
        side = "≥" if self.least else "≤"
        whom = {
            "×": f" × {self.other}", "value": "", "more by": f" above {self.other}"
        }[self.kind]  # fmt: skip
        return f"{side} {self.bound:,g}{whom}"

    def found(self, figures: Figures) -> Summary | None:
        """What was measured; None: it was not."""
        if self.kind == "×":
            return figures.ratio(self.figure, self.peer, self.other)
        if self.kind == "more by":
            return figures.difference(self.figure, self.peer, self.other)
        return figures.of(self.figure, self.peer)

    def met(self, found: Summary) -> bool:
        """Whether the median does."""
        return found.median >= self.bound if self.least else found.median <= self.bound


def _tokens() -> Iterator[Bound]:
    for streams in ("one stream", "32 streams"):
        rate, cpu = f"ready, {streams}: rate", f"ready, {streams}: CPU"
        yield Bound(1, rate, "×", 1.0, least=True)
        yield Bound(1, cpu, "×", 1.0)
        yield Bound(1, rate, "×", 1.25, least=True, other=STARLETTE)
        yield Bound(1, rate, "×", 1.25, least=True, other=STARLETTE, peer=OUR_BYTES)
        yield Bound(1, rate, "×", 4, least=True, other=SSE_STARLETTE)
    for shape in ("steps", "bursts"):
        yield Bound(1, f"{shape}, 32 streams: CPU", "×", 1.0)
    for streams in ("one stream", "32 streams"):
        yield Bound(2, f"ready_sync, {streams}: rate", "×", 10, least=True, other=STARLETTE)
    yield Bound(2, "sync generator: close to stopped, p99", "value", 5)


def _leaving() -> Iterator[Bound]:
    for phase in ("decode", "prefill", "not streaming", "queued"):
        for share in (50, 99):
            yield Bound(3, f"{phase}: close to stopped, p{share}", "×", 1.3)
    yield Bound(3, "1,000 dropped at once: last one stopped", "×", 1.3)


def _requests() -> Iterator[Bound]:
    yield Bound(5, "coroutine call: CPU", "more by", 60)
    yield Bound(5, "coroutine call: latency p50", "more by", 60)
    for kind, ours, shipped, truss in (
        ("async", SERVE, SHIPPED, TRUSS),
        ("sync", SERVE_SYNC, SHIPPED_SYNC, TRUSS_SYNC),
    ):
        name = f"model class, {kind} predict"
        for what in ("CPU", "latency p50"):
            yield Bound(5, f"{name}: {what}", "×", 1.15, other=FASTAPI, peer=ours)
        yield Bound(5, f"{name}: CPU", "×", 0.2, other=truss, peer=shipped)
        yield Bound(5, f"{name}: rate", "×", 5, least=True, other=truss, peer=shipped)
    for streams in ("one stream", "32 streams"):
        yield Bound(5, f"ready, {streams}: rate", "×", 5, least=True, other=TRUSS, peer=SHIPPED)


def _idle() -> Iterator[Bound]:
    yield Bound(4, "1,000 idle streams: memory", "×", 1.0, other=STARLETTE)
    yield Bound(4, "1,000 idle streams: CPU", "more by", 0.5)
    yield Bound(4, "10,000 streams at once: open", "value", 10_000, least=True)


def _growth() -> Iterator[Bound]:
    for kind in ("streams", "tokens", "cancels"):
        yield Bound(6, f"growth with {kind}: exponent", "value", 1.05)
    for peer in (OURS, SERVE):
        yield Bound(6, "growth with requests in flight: exponent", "value", 1.05, peer=peer)


def _system() -> Iterator[Bound]:
    crowd = "1,000 clients, 30% leave"
    yield Bound(7, f"{crowd}: survivors", "×", 1.0, least=True, other=RUNS_ON, peer=ENGINE)
    yield Bound(7, f"{crowd}: made after a leave", "value", 1.0, peer=ENGINE)


def _start() -> Iterator[Bound]:
    yield Bound(8, "start: a process that imports it", "more by", 60, other="python")
    yield Bound(8, "start: until it is ready", "value", 1, peer=SERVE)


BOUNDS: Final = (
    *_tokens(),
    *_leaving(),
    *_idle(),
    *_requests(),
    *_growth(),
    *_system(),
    *_start(),
)
