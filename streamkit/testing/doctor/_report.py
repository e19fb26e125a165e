"""What the doctor says: a table for people, plain values for machines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ._findings import Finding, is_well
from ._identity import Proxy
from ._remedies import what_to_change

_WORDS: Final = {"ok": "ok", "warning": "warning", "fault": "FAULT", "unknown": "cannot tell"}
_WIDTH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found.

    Attributes:
        url: The server as its clients reach it.
        backend: The same without the proxy; None: not known.
        proxy: Who answers first.
        witness: Who saw what the server heard.
        findings: In the order in which they were looked for.
        seconds: That it took.
    """

    url: str
    backend: str | None
    proxy: Proxy
    witness: str
    findings: Sequence[Finding]
    seconds: float


def as_text(report: Report) -> Iterator[str]:
    """The report, line by line."""
    behind = f", behind it {report.backend}" if report.backend else ""
    yield f"doctor at {report.url}{behind}"
    yield f"  proxy    {report.proxy.said}"
    yield f"  witness  {report.witness}"
    yield ""
    width = max((len(finding.name) for finding in report.findings), default=0)
    for finding in report.findings:
        head = f"  {finding.name:{width}}  {_WORDS[finding.state]:11}  "
        yield from textwrap.wrap(
            finding.evidence, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)
        )
    changes = list(what_to_change(report.findings, report.proxy))
    if changes:
        yield ""
        yield "what to change" + _whose_doing(report)
    for name, kind, lines in changes:
        yield f"  {name}, in {kind}:"
        yield from (f"      {line}" for line in lines)
    yield ""
    yield f"{'all well' if is_well(report.findings) else 'not well'}, in {report.seconds:.0f} s"


def _whose_doing(report: Report) -> str:
    if report.proxy.kind or report.backend:
        return ""
    return ", if there is a proxy; without one it is the server's doing (--backend URL tells)"


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "url": report.url,
        "backend": report.backend,
        "proxy": {"kind": report.proxy.kind, "said": report.proxy.said},
        "witness": report.witness,
        "well": is_well(report.findings),
        "seconds": round(report.seconds, 3),
        "findings": {
            finding.name: {
                "state": finding.state,
                "evidence": finding.evidence,
                "remedy": finding.remedy,
                "figures": dict(finding.figures),
            }
            for finding in report.findings
        },
        "change": [
            {"finding": name, "proxy": kind, "lines": list(lines)}
            for name, kind, lines in what_to_change(report.findings, report.proxy)
        ],
    }
