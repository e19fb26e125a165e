"""`make proxies-page`: measure every case as a user would, and write the table of the how-to page.

It takes a quarter of an hour: leaves are waited for as long as by default, silences for 65 s.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import anyio

from streamkit.testing.doctor._command import examine, parser, prepare
from streamkit.testing.doctor._findings import span
from streamkit.testing.doctor._report import as_json
from tests.proxies.cases import CASES, Case
from tests.proxies.starting import installed, proxy, version
from tests.server.serving import serving

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "find-what-your-proxy-does.md"
BETWEEN = re.compile(r"(<!-- measured -->\n).*(<!-- /measured -->)", re.DOTALL)
SILENT = "--engine-option=prefill_tokens_per_step=1"
COLUMNS = {
    "buffering": "a token waits",
    "compression": "compressed",
    "leave: streaming": "told of a leave while streaming",
    "leave: no byte yet": "… before the first byte",
    "leave: one answer": "… in one answer",
    "half-close": "half-close",
    "silence": "silence",
    "heartbeats": "heartbeats",
    "request": "`x-request-id`",
}
UNTRIED = "·"


def measured(case: Case, backend: str) -> dict[str, Any]:
    """What the doctor finds, with its defaults; silences are long only where all is looked at."""
    looks = case.looks - {"silence"}
    options = [f"--check={name}" for name in sorted(looks)]
    if looks:
        options.append("--idle=20")
    with proxy(case.proxy, backend, case.lines) as url:
        given = parser().parse_args([url, f"--backend={backend}", *options])
        report = anyio.run(examine, prepare(given), None, given.check)
    return as_json(report)["findings"]


def cell(name: str, found: Mapping[str, Any]) -> str:
    """One figure of a finding; bold where it is wrong."""
    if name not in found:
        return UNTRIED
    state, figures = found[name]["state"], found[name]["figures"]
    match name:
        case "buffering" | "compression":
            text = span(figures["held"]) if figures else "no"
        case "half-close":
            text = "is a leave" if figures["taken_for_a_leave"] else "is answered"
        case "silence":
            text = f"{figures['seconds']:.0f} s"
            text = text if state == "ok" else f"{figures['status']} after {text}"
        case "heartbeats":
            text = f"{len(figures['heartbeats'])} in {figures['seconds']:.0f} s"
            text = text if state == "ok" else f"{text}, held back"
        case "request":
            text = "kept" if state == "ok" else "changed"
        case _:
            text = ", ".join(ways(figures))
    return text if state == "ok" else f"**{text}**"


def ways(figures: Mapping[str, Any]) -> Iterator[str]:
    """When the server was told after a FIN and a RST; once if that is about the same."""
    texts = {way.upper(): told(tries) for way, tries in figures.items()}
    if len(set(texts.values())) == 1:
        yield texts["FIN"]
    else:
        yield from (f"{way} {text}" for way, text in texts.items())


def told(tries: list[Mapping[str, Any]]) -> str:
    after = [each["after"] for each in tries if each["after"] is not None]
    if not after:
        return "never"
    # Below a few milliseconds it is the machine that is measured.
    return "< 10 ms" if median(after) < 0.01 else span(median(after))


def rows() -> Iterator[str]:
    """The table, line by line."""
    yield f"| | | {' | '.join(COLUMNS.values())} |"
    yield f"|---|---|{'---|' * len(COLUMNS)}"
    with ExitStack() as stack:
        servers = {
            flags: stack.enter_context(serving(SILENT, *flags)).url
            for flags in sorted({case.serve for case in CASES})
        }
        for case in CASES:
            if case.finds == {"silence"} or not installed(case.proxy):
                continue  # a limit of 1.5 s says nothing about the proxy
            sys.stderr.write(f"{case}\n")
            found = measured(case, servers[case.serve])
            cells = " | ".join(cell(name, found) for name in COLUMNS)
            yield f"| {case.proxy} | {case.name} | {cells} |"


def main() -> None:
    """Measure, and write the page."""
    table = "\n".join(rows())
    kinds = [kind for kind in ("nginx", "haproxy", "caddy") if installed(kind)]
    names = ", ".join(f"{kind} {version(kind)}" for kind in kinds)
    said = f"Measured with {names}, on Linux with Python {platform.python_version()}."
    PAGE.write_text(BETWEEN.sub(lambda m: f"{m[1]}{said}\n\n{table}\n{m[2]}", PAGE.read_text()))


if __name__ == "__main__":
    main()
