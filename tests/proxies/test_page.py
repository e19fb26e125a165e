"""The how-to page about proxies names every case, and its configurations are well."""

from __future__ import annotations

import re
from pathlib import Path

from streamkit.testing.doctor._remedies import REMEDIES
from tests.proxies.cases import CASES
from tests.proxies.starting import PACKAGES

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "find-what-your-proxy-does.md"


def configuration(kind: str) -> str:
    """What the page recommends, without what says where the server is."""
    [block] = re.findall(rf"(?ms)^```{kind}\n(.*?)^```", PAGE.read_text())
    lines = [line.strip() for line in block.splitlines()]
    where = ("location", "proxy_pass", "reverse_proxy", "defaults", "}")
    return "\n    ".join(line for line in lines if not line.startswith(where))


def test_the_table_has_a_row_for_every_case() -> None:
    rows = PAGE.read_text()
    shown = [case for case in CASES if case.finds != {"silence"}]

    missing = [case for case in shown if f"| {case.proxy} | {case.name} |" not in rows]
    assert not missing, "make proxies-page"


def test_what_the_page_recommends_has_lines_where_a_proxy_needs_some() -> None:
    assert "proxy_buffering off;" in configuration("nginx")
    assert "option abortonclose" in configuration("haproxy")
    assert configuration("caddy") == ""


def test_every_remedy_of_every_proxy_is_tried() -> None:
    named = {
        (case.proxy, remedy)
        for case in CASES
        for remedy, lines in REMEDIES.items()
        if case.cures and any(case.cures in line for line in lines[case.proxy])
    }
    # haproxy flushes what it compresses; the heartbeat's lines are those of the silence.
    untried = {("haproxy", "compression"), *((kind, "heartbeat") for kind in PACKAGES)}
    assert named | untried == {(kind, remedy) for remedy in REMEDIES for kind in PACKAGES}
