"""Tables of what was measured, as text that is Markdown, too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchmarks.bench import Bench
from benchmarks.figures import Figures, Summary
from benchmarks.goals import BOUNDS, GOALS, Bound
from benchmarks.machine import machine
from benchmarks.peers import OURS


def whole(bench: Bench, seconds: float) -> str:
    """Everything: conditions, goals, and each figure."""
    parts = [conditions(bench, seconds), goals(bench.figures), *figures(bench.figures)]
    return "\n\n".join(part for part in parts if part)


def conditions(bench: Bench, seconds: float) -> str:
    """Machine, versions, noise, and who is missing."""
    lines = [f"- {what}: {value}" for what, value in machine().items()]
    worst = max(bench.watch.seen, key=lambda noise: noise.worst, default=None)
    lines.append(f"- {bench.plan.rounds} rounds, {seconds / 60:.0f} min; noisiest: {worst}")
    lines += [f"- left out: {name}: {why}" for name, why in bench.left_out.items()]
    lines += [f"- {note}" for note in bench.notes]
    if bench.watch.noisy:
        lines.append("- **measured on a machine that was not quiet: compare nothing closely**")
    return "\n".join(lines)


def goals(measured: Figures) -> str:
    """Goal by goal, with its verdict."""
    rows = [verdict(bound, bound.found(measured)) for bound in BOUNDS]
    head = ("goal", "what", "who", "wanted", "measured", "low – high", "verdict")
    return "\n".join(table(head, rows))


def verdict(bound: Bound, found: Summary | None) -> Sequence[str]:
    """A row of the table of goals."""
    start = (f"{bound.goal} {GOALS[bound.goal]}", bound.figure, bound.peer, bound.wanted)
    if found is None:
        return (*start, "", "", "not measured")
    spread = f"{number(found.low)} – {number(found.high)}"
    return (*start, number(found.median), spread, "met" if bound.met(found) else "**missed**")


def figures(measured: Figures) -> Iterator[str]:
    """A table for each figure: the contenders, and how many times of ours each is."""
    for figure in measured.known.values():
        if figure.detail:
            continue
        rows = []
        for peer in measured.peers(figure.name):
            summary = measured.of(figure.name, peer)
            ratio = measured.ratio(figure.name, peer, OURS)
            assert summary is not None
            times = f"{number(ratio.median)} ×" if ratio else ""
            rows.append((peer, number(summary.median), f"± {summary.spread:.0%}", times))
        head = (
            f"{figure.name}, {figure.unit}".removesuffix(", "),
            "median",
            "spread",
            f"of {OURS}",
        )
        yield "\n".join(table(head, rows))


def number(value: float) -> str:
    """Three digits that count, or never."""
    if math.isinf(value):
        return "never"
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table whose columns stand below each other."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield f"| {' | '.join(cells)} |"
