"""The page on what a cancel does to each engine is made of what the conformance kit saw.

``python -m tests.docs.test_engine_capabilities`` writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.engines import KnownEngine, engine_names, known_engine

PAGES = Path(__file__).parents[2] / "docs" / "reference"
PAGE = PAGES / "engine-capabilities.md"
REPORTS = PAGES / "engine-reports"
HOW_TO_CHANGE = "if you meant it: python -m tests.docs.test_engine_capabilities"
HEAD = """\
# What a cancel does to each engine

This page is written by `python -m tests.docs.test_engine_capabilities`.
It is made of what each adapter declares (`streamkit engines` shows the same), and of what the
[conformance kit](testing.md#an-engine-that-stops) saw, as it is in [reports](engine-reports).
`REPORTS=write make test-engines` and `REPORTS=write make test` write those anew.
A declared claim that is no longer the one that was seen fails the build.

Times are from the cancel to the proof that the engine stopped: the median, and the longest.
They were taken with a small model on the machine that is named, so that they show that an engine
stops, not how fast yours does; those of the fake engine are of its own simulated clock.
What was verified on a contract stub has no times: they would be the stub's.
"""
FOOT = """\
## What happens when this is cancelled

In each engine the reader ends in the turn of the cancel.
The abort and its [proof](../explanation/proof-of-stop.md) go on beside it, held and bounded.
"""


def report_of(name: str) -> dict[str, Any] | None:
    file = REPORTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def page() -> str:
    engines = [(known_engine(name), report_of(name)) for name in engine_names()]
    sections = ["\n".join(section(engine, report)) for engine, report in engines]
    return "\n".join([HEAD, *table(engines), "", *sections, FOOT])


def table(engines: list[tuple[KnownEngine, dict[str, Any] | None]]) -> Iterator[str]:
    yield "| engine | in the queue | in prefill | in decode | proof | verified on |"
    yield "|---|---|---|---|---|---|"
    for engine, report in engines:
        cells = [
            f"[{engine.name}](#{engine.name})",
            *(cell(place, words, report) for place, words in engine.reach.items()),
            where(engine.name, report),
        ]
        yield f"| {' | '.join(cells)} |"


def cell(place: str, words: str, report: dict[str, Any] | None) -> str:
    times = None if report is None or report["stub"] else report["stopped_ms"].get(place)
    if times is None:
        return words
    return f"{words}; {times['median']:g} ms, {times['max']:g} ms at most"


SEEN_ON = {"fake": "the fake engine itself", "upstream": "a streamkit server, `proof=streamkit`"}


def where(name: str, report: dict[str, Any] | None) -> str:
    if report is None:
        return "not verified here"
    return "a contract stub only" if report["stub"] else SEEN_ON.get(name, "the real engine")


def section(engine: KnownEngine, report: dict[str, Any] | None) -> Iterator[str]:
    yield f"## {engine.name}\n"
    if report is None:
        yield "Not verified here: the conformance kit has left no report on it.\n"
    else:
        yield from seen(engine.name, report)
    yield f"It heeds: {', '.join(sorted(engine.capabilities.takes)) or 'no options'}.\n"
    if engine.cannot:
        yield "| not possible | why |\n|---|---|"
        yield from (f"| {what} | {why} |" for what, why in engine.cannot.items())
        yield ""


def seen(name: str, report: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    trials = sum(map(len, report["trials"].values()))
    verdict = "passed" if report["passed"] else "FAILED"
    yield (
        f"The kit {verdict} on {where(name, report)}, {report['date']}: {trials} generations "
        f"left in {len(report['trials'])} phases, {report['cancels']} more in the search "
        "for leaks.\n"
        f"{versions}; {report['machine']}.\n"
    )
    yield "| claim | what was seen |\n|---|---|"
    yield from (f"| `{name}` | {what} |" for name, what in report["verified"].items())
    yield from (
        f"| `{name}` | could not be seen: {what} |" for name, what in report["unverified"].items()
    )
    yield ""


def test_the_page_is_what_was_declared_and_seen() -> None:
    assert PAGE.read_text() == page(), HOW_TO_CHANGE


@pytest.mark.parametrize("file", sorted(REPORTS.glob("*.json")), ids=lambda file: file.stem)
def test_what_an_engine_declares_is_what_was_verified(file: Path) -> None:
    report = json.loads(file.read_text())
    declared = known_engine(file.stem).capabilities.as_json()

    assert report["passed"]
    for claim in ("cancel_queued", "cancel_prefill", "proof", "kill", "backpressure"):
        # The least for one whose options decide: with others than the usual it was seen to do more.
        least = "closed" if claim == "proof" else "none"
        assert declared[claim] in {report["capabilities"][claim], least}, (
            f"{claim} changed since the kit last saw it: REPORTS=write make test-engines"
        )


if __name__ == "__main__":
    PAGE.write_text(page())
