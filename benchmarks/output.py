"""What a run leaves behind: numbers as JSON, plots as SVG, and the page that shows them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import plots, report
from benchmarks.bench import Bench
from benchmarks.machine import machine
from benchmarks.measures import growth

PLOTTED = {
    "tokens": "ready, one stream: rate",
    "tokens-cpu": "ready, 32 streams: CPU",
    "sync": "ready_sync, one stream: rate",
    "leaving": "decode: close to stopped, p50",
    "crowd": "1,000 dropped at once: last one stopped",
    "memory": "1,000 idle streams: memory",
}


def write(bench: Bench, seconds: float, folder: Path) -> None:
    """Into ``folder``: ``results.json``, ``*.svg``, and the generated part of ``README.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    results = json.dumps(as_json(bench), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(results + "\n")
    drawn = _draw(bench, folder)
    page = folder / "README.md"
    text = page.read_text() if page.exists() else "<!-- generated -->\n<!-- end -->\n"
    images = "\n".join(f"![{name}]({name}.svg)" for name in drawn)
    page.write_text(replaced(text, f"{report.whole(bench, seconds)}\n\n{images}"))


def replaced(page: str, generated: str) -> str:
    """The page with that between its marks.

    Raises:
        ValueError: It has no marks.
    """
    marks = re.compile(r"(<!-- generated -->\n).*(<!-- end -->)", re.DOTALL)
    if not marks.search(page):
        raise ValueError("the page has no marks between which to write")
    return marks.sub(lambda match: f"{match[1]}\n{generated}\n\n{match[2]}", page)


def as_json(bench: Bench) -> dict[str, object]:
    """Every value of every turn; null is never."""
    return {
        "machine": machine(),
        "noisy": bench.watch.noisy,
        "noise": [str(noise) for noise in bench.watch.seen],
        "left_out": bench.left_out,
        "figures": [
            {
                "figure": name,
                "unit": bench.figures.known[name].unit,
                "contender": peer,
                "turns": {k: None if math.isinf(v) else round(v, 6) for k, v in turns.items()},
            }
            for (name, peer), turns in bench.figures.values.items()
        ],
    }


def _draw(bench: Bench, folder: Path) -> list[str]:
    drawn: list[str] = []
    for name, figure in PLOTTED.items():
        if figure not in bench.figures.known:
            continue
        summaries = {peer: bench.figures.of(figure, peer) for peer in bench.figures.peers(figure)}
        known = {peer: summary for peer, summary in summaries.items() if summary}
        unit = bench.figures.known[figure].unit
        (folder / f"{name}.svg").write_text(plots.bars(figure, unit, known))
        drawn.append(name)
    return [*drawn, *_draw_curves(bench, folder)]


def _draw_curves(bench: Bench, folder: Path) -> Iterator[str]:
    for kind, (_, sizes, _) in growth.KINDS.items():
        curves = {peer: _curve(bench, kind, sizes, peer) for peer in growth.WHO}
        if known := {peer: curve for peer, curve in curves.items() if curve}:
            name = f"growth-{kind.replace(' ', '-')}"
            plot = plots.lines(f"growth with {kind}", (kind, "CPU of the server, ms"), known)
            (folder / f"{name}.svg").write_text(plot)
            yield name


def _curve(bench: Bench, kind: str, sizes: Sequence[int], peer: str) -> list[tuple[float, float]]:
    found = ((size, bench.figures.of(growth.point_name(kind, size), peer)) for size in sizes)
    return [(size, summary.median) for size, summary in found if summary]
