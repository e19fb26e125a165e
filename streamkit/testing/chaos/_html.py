"""The report as one HTML file: verdict, pictures, and every cell; it loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from streamkit.testing._faults import Seen

from . import _svg
from ._report import describe
from ._verdict import Results, is_good, judge

_COLOURS: Final = {"connect": "#bbb", "send": "#e8c468", "wait": "#e09f5f", "read": "#6a9"}
_STATES: Final = {"stopped": "#6a9", "ran on": "#c22", "failed": "#c22"}
_WORDS: Final = {"good": "#6a9", "bad": "#c22", "unknown": "#999"}
_STYLE: Final = """\
body { font: 14px sans-serif; margin: 2em auto; width: 920px; color: #222 }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: left }
tr:nth-child(even) { background: #f4f4f4 } code { background: #eee; padding: .2em }
b.word { color: #fff; padding: .1em .5em; border-radius: .3em }
"""


def as_html(results: Results) -> str:
    """The whole page."""
    body = "\n".join(_body(results))
    title = f"chaos at {escape(results.url)}"
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>"
        f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n{body}\n</html>\n"
    )


def _body(results: Results) -> Iterator[str]:
    checks = judge(results)
    word = "good" if is_good(checks) else "bad"
    seconds = results.ended_at - results.began_at
    yield f"<p>{_word(word)} seed {results.plan.seed}, {seconds:.0f} s, again:</p>"
    yield f"<p><code>{escape(results.again)}</code></p>"
    yield _table(
        ("", "", ""),
        [(escape(each.name), _word(each.word), escape(each.detail)) for each in checks],
    )
    yield from _pictures(results)
    yield "<h2>Faults, one by one</h2>"
    rows = [(escape(cell.fault), cell.state, escape(describe(cell))) for cell in results.cells]
    yield _table(("fault", "server", ""), rows)


def _pictures(results: Results) -> Iterator[str]:
    start, span = results.began_at, results.ended_at - results.began_at
    if results.running:
        yield "<h2>Requests that the server says it has</h2>"
        yield _svg.area([(at - start, running) for at, running in results.running], span, "")
    yield "<h2>Clients of the crowd</h2>"
    key = ", ".join(f'<span style="color:{c}">■</span> {n}' for n, c in _COLOURS.items())
    yield f'<p>{key}, <span style="color:#c22">▎</span> left</p>'
    guests = sorted(results.crowd.guests, key=lambda guest: guest.seen.began_at)
    first = guests[0].seen.began_at if guests else start
    last = max((guest.seen.ended_at or first for guest in guests), default=first)
    rows = [(str(guest.client.fault), *_row(guest.seen, first)) for guest in guests]
    yield _svg.timeline(rows, last - first)
    stopped = [cell for cell in results.cells if cell.after is not None]
    if stopped:
        yield "<h2>From leaving to the server at rest</h2>"
        yield _svg.histogram([(cell.after or 0) * 1_000 for cell in stopped], "ms")
        yield _svg.bars(
            [
                (cell.fault, (cell.after or 0) * 1_000, _STATES.get(cell.state, "#999"))
                for cell in stopped
            ],
            "ms",
        )
    told = [cell for cell in results.cells if cell.tokens is not None]
    if told:
        yield "<h2>Tokens made for clients that had gone, at most</h2>"
        yield _svg.bars(
            [(cell.fault, cell.tokens or 0, _STATES.get(cell.state, "#999")) for cell in told], ""
        )


def _row(seen: Seen, start: float) -> tuple[Sequence[tuple[float, float, str]], float | None]:
    """The bars of one client, from phase to phase, and when it left."""
    stamps = [
        ("connect", seen.began_at),
        ("send", seen.connected_at),
        ("wait", seen.sent_at),
        ("read", seen.first_byte_at),
    ]
    ends = seen.ended_at or seen.began_at
    known = [(name, at) for name, at in stamps if at is not None]
    stops = [*(at for _, at in known[1:]), ends]
    bars = [
        (at - start, stop - start, _COLOURS[name])
        for (name, at), stop in zip(known, stops, strict=True)
    ]
    left = None if seen.left_at is None or seen.complete else seen.left_at - start
    return bars, left


def _word(word: str) -> str:
    return f'<b class="word" style="background:{_WORDS[word]}">{word}</b>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    inside = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><tr>{top}</tr>{inside}</table>"
