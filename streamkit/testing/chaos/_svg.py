"""Pictures as inline SVG, with nothing but the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

WIDTH: Final = 900
_LEFT: Final = 150  # room for names
_ROW: Final = 14
_FONT: Final = 'font-family="sans-serif" font-size="10"'


def timeline(
    rows: Sequence[tuple[str, Sequence[tuple[float, float, str]], float | None]], span: float
) -> str:
    """A row for each client.

    Args:
        rows: Name, bars (from, to, colour), and the instant of a mark for its leaving.
        span: Seconds of the whole width.
    """
    scale = (WIDTH - _LEFT) / max(span, 1e-6)
    parts: list[str] = []
    for number, (name, bars, mark) in enumerate(rows):
        y = number * _ROW + 2
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 9}" text-anchor="end">{escape(name)}</text>')
        for begin, end, colour in bars:
            x, width = _LEFT + begin * scale, max((end - begin) * scale, 0.5)
            parts.append(_box(x, y, width, _ROW - 4, colour))
        if mark is not None:
            x = _LEFT + mark * scale
            parts.append(f'<path d="M{x:.1f} {y - 1}v{_ROW - 2}" stroke="#c22" stroke-width="2"/>')
    return _picture(parts, len(rows) * _ROW + 20, _axis(span, "s", len(rows) * _ROW + 14))


def area(points: Sequence[tuple[float, float]], span: float, unit: str) -> str:
    """Steps over time: a value holds until the next."""
    height = 90
    most = max((value for _, value in points), default=0.0) or 1.0
    scale = (WIDTH - _LEFT) / max(span, 1e-6)
    path = f"M{_LEFT} {height}"
    for at, value in points:
        path += f"H{_LEFT + at * scale:.1f}V{height - value / most * (height - 8):.1f}"
    path += f"V{height}Z"
    label = f'<text x="{_LEFT - 6}" y="14" text-anchor="end">{most:g} {escape(unit)}</text>'
    parts = [f'<path d="{path}" fill="#69c" stroke="none"/>', label]
    return _picture(parts, height + 20, _axis(span, "s", height + 14))


def bars(rows: Sequence[tuple[str, float, str]], unit: str) -> str:
    """A bar for each name, value and colour."""
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts: list[str] = []
    for number, (name, value, colour) in enumerate(rows):
        y = number * _ROW + 2
        width = value / most * (WIDTH - _LEFT - 80)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 9}" text-anchor="end">{escape(name)}</text>')
        parts.append(_box(_LEFT, y, max(width, 1), _ROW - 4, colour))
        said = f"{value:.3g} {unit}"
        parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 9}">{escape(said)}</text>')
    return _picture(parts, len(rows) * _ROW + 6, "")


def histogram(values: Sequence[float], unit: str, columns: int = 20) -> str:
    """How often which value."""
    height, most = 90, max(values, default=0.0) or 1.0
    counts = [0] * columns
    for value in values:
        counts[min(columns - 1, int(value / most * columns))] += 1
    width = (WIDTH - _LEFT) / columns
    parts: list[str] = []
    for number, count in enumerate(counts):
        tall = count / max(counts) * (height - 8)
        parts.append(_box(_LEFT + number * width, height - tall, width - 1, tall, "#69c"))
    parts.append(f'<text x="{_LEFT - 6}" y="14" text-anchor="end">{max(counts)} clients</text>')
    return _picture(parts, height + 20, _axis(most, unit, height + 14))


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
    )


def _axis(span: float, unit: str, y: float) -> str:
    labels: list[str] = []
    for number in range(6):
        x = _LEFT + number / 5 * (WIDTH - _LEFT - 40)
        at = number / 5 * span * (WIDTH - _LEFT - 40) / (WIDTH - _LEFT)
        labels.append(f'<text x="{x:.1f}" y="{y}">{at:.3g} {escape(unit)}</text>')
    return "".join(labels)


def _picture(parts: Sequence[str], height: float, axis: str) -> str:
    inside = "".join(parts) + axis
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" {_FONT}>{inside}</svg>'
