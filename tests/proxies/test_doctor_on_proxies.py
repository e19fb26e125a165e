"""What `streamkit doctor` finds in nginx, haproxy and Caddy, well and badly configured.

``make proxies`` runs these with what is installed; they take minutes and install nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from streamkit.testing.doctor._command import examine, parser, prepare
from streamkit.testing.doctor._report import as_json
from tests.proxies.cases import CASES, PLAIN, Case
from tests.proxies.starting import PACKAGES, installed, proxy
from tests.proxies.test_page import configuration
from tests.server.serving import serving

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.environ.get("PROXIES") != "full", reason="minutes: make proxies"),
]
# A leave that comes with the next heartbeat is too late; a silence lasts for two of them.
SLOW = ("--heartbeat=1", "--engine-option=step_ms=10", "--engine-option=prefill_tokens_per_step=1")
LIMITS = ("--repeat=1", "--stop-within=0.5", "--late=0.3", "--stream=0.8", "--idle=2.5")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[tuple[str, ...], str]]:
    """The URL of a server for each set of flags."""
    with ExitStack() as stack:
        yield {
            flags: stack.enter_context(serving(*SLOW, *flags)).url
            for flags in sorted({case.serve for case in CASES})
        }


def examined(servers: dict[tuple[str, ...], str], case: Case) -> dict[str, Any]:
    if not installed(case.proxy):
        pytest.skip(f"{case.proxy} is not installed: apt-get install {PACKAGES[case.proxy]}")
    backend = servers[case.serve]
    checks = [f"--check={name}" for name in sorted(case.looks)]
    with proxy(case.proxy, backend, case.lines) as url:
        given = parser().parse_args([url, f"--backend={backend}", *LIMITS, *checks])
        return as_json(anyio.run(examine, prepare(given), None, given.check))


def wrong(report: dict[str, Any]) -> dict[str, str]:
    """What is not well, and why not."""
    found = report["findings"]
    return {name: each["evidence"] for name, each in found.items() if each["state"] != "ok"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_doctor_finds_what_the_proxy_does_and_names_the_directive(
    servers: dict[tuple[str, ...], str], case: Case
) -> None:
    report = examined(servers, case)

    assert set(wrong(report)) == set(case.finds), wrong(report)
    assert report["proxy"]["kind"] == case.proxy
    lines = [line for change in report["change"] for line in change["lines"]]
    assert {change["proxy"] for change in report["change"]} <= {case.proxy}
    assert any(case.cures in line for line in lines) or not case.cures, lines


@pytest.mark.parametrize("kind", PACKAGES)
def test_only_caddy_ends_a_half_closed_stream_as_if_it_were_whole(
    servers: dict[tuple[str, ...], str], kind: str
) -> None:
    lines = {"lines": configuration(kind)}
    case = Case(proxy=kind, name="a half-close", lines=lines, looks=frozenset({"half-close"}))

    figures = examined(servers, case)["findings"]["half-close"]["figures"]

    assert figures == {"taken_for_a_leave": True, "looks_whole": kind == "caddy"}


@pytest.mark.parametrize("kind", PACKAGES)
def test_what_the_page_recommends_is_well(servers: dict[tuple[str, ...], str], kind: str) -> None:
    case = Case(proxy=kind, name="recommended", lines={"lines": configuration(kind)}, serve=PLAIN)

    assert wrong(examined(servers, case)) == {}
