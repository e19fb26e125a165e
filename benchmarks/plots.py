"""Plots as SVG, by hand: bars for contenders, lines for growth; two are worth no dependency."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from benchmarks.figures import Summary
from benchmarks.peers import OURS
from benchmarks.report import number

WIDTH = 720
LABELS = 170  # for the names at the left
VALUES = 90  # for the numbers at the right
BAR = 18
OUR_COLOUR = "#0b6e4f"
COLOURS = ("#0b6e4f", "#8a8f98", "#c46a2b", "#3465a4", "#8f4a9c", "#777733")
STYLE = "font: 13px system-ui, sans-serif"


def bars(title: str, unit: str, values: Mapping[str, Summary]) -> str:
    """Horizontal bars with their spread; what never happens has none."""
    finite = [value.high for value in values.values() if not math.isinf(value.median)]
    scale = (WIDTH - LABELS - VALUES) / max([*finite, 1e-9])
    parts = [_text(0, 16, f"{title} ({unit})", weight="600")]
    for row, (name, value) in enumerate(values.items()):
        y = 30 + row * (BAR + 8)
        parts.append(_text(LABELS - 8, y + 13, name, anchor="end"))
        length = 0.0 if math.isinf(value.median) else value.median * scale
        colour = OUR_COLOUR if name.startswith(OURS) else "#8a8f98"
        parts.append(
            f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
        )
        end = LABELS + length
        if length:
            low, high = LABELS + value.low * scale, LABELS + value.high * scale
            parts.append(_line(low, y + BAR / 2, high, y + BAR / 2, "#222"))
            end = max(end, high)
        parts.append(_text(end + 6, y + 13, number(value.median)))
    return _svg(parts, 30 + len(values) * (BAR + 8) + 4)


def lines(
    title: str, axes: tuple[str, str], series: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    """Both axes logarithmic: a line of slope one is growth in a line."""
    height, left, bottom = 400, 70, 350
    points = [point for line in series.values() for point in line]
    x_of = _axis([x for x, _ in points], left, WIDTH - 180)
    y_of = _axis([y for _, y in points], bottom, 40)
    parts = [_text(0, 16, title, weight="600"), _text(left, bottom + 40, axes[0])]
    parts.append(_text(0, 34, axes[1]))
    for x in _decades([x for x, _ in points]):
        parts.append(_line(x_of(x), 40, x_of(x), bottom, "#ddd"))
        parts.append(_text(x_of(x), bottom + 18, f"{x:,g}", anchor="middle"))
    for y in _decades([y for _, y in points]):
        parts.append(_line(left, y_of(y), WIDTH - 180, y_of(y), "#ddd"))
        parts.append(_text(left - 6, y_of(y) + 4, f"{y:,g}", anchor="end"))
    for (name, line), colour in zip(series.items(), COLOURS, strict=False):
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = line[-1]
        parts.append(_text(x_of(x) + 6, y_of(y) + 4, name, colour=colour))
    return _svg(parts, height)


def _axis(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = math.log(min(values)), math.log(max(values))
    width = (high - low) or 1.0
    return lambda value: start + (math.log(value) - low) / width * (end - start)


def _decades(values: Sequence[float]) -> list[float]:
    first, last = math.ceil(math.log10(min(values))), math.floor(math.log10(max(values)))
    return [10.0**power for power in range(first, last + 1)]


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    weight: str = "400",
    colour: str = "#222",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _svg(parts: Sequence[str], height: float) -> str:
    inner = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'style="{STYLE}">\n<rect width="100%" height="100%" fill="#fff"/>\n{inner}\n</svg>\n'
    )
