"""`streamkit check`: what a model class takes and how a cancel reaches it, without importing it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from streamkit.errors import ModelLoadFailed, TargetNotFound
from streamkit.runner._model._check import Code, Finding, Report, Severity, check

_DESCRIPTION: Final = """\
Reads a model class without importing it, and says which methods it has, what each takes, how a
cancel will reach each, and what of it cannot be cancelled or would block the event loop.

TARGET is what `streamkit serve` takes: package.module:Class, a .py file, or a folder in Truss's
layout (config.yaml, model/model.py).
"""
_EPILOG: Final = """\
A cancel is the same whatever its cause: the client left, POST /v1/requests/{id}/cancel, a deadline,
a drain. Findings are lines `FILE:LINE: error|warning|note: TEXT [CODE]`.

exit status: 0 it would load (warnings and notes allowed), 1 it would be refused, 2 wrong usage or
no such TARGET
"""
_HEAD: Final = ("method", "line", "kind", "takes", "when a cancel comes")


def main(arguments: Sequence[str]) -> int:
    """Run ``streamkit check``; return its exit status."""
    given = _parser().parse_args(arguments)
    try:
        report = check(given.target, given.extensions)
    except (TargetNotFound, ModelLoadFailed, OSError) as error:
        sys.stderr.write(f"streamkit check: {error}\n")
        return 1 if isinstance(error, ModelLoadFailed) else 2
    lines = [json.dumps(_as_json(report), indent=2)] if given.json else _as_text(report)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0 if report.loads else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamkit check",
        usage="streamkit check [--json] [--extensions DIR] TARGET",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("target", metavar="TARGET", help="the model class")
    parser.add_argument(
        "--extensions", type=Path, metavar="DIR", help="a folder of more, NAME/extension.py"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


# -- for people ------------------------------------------------------------------------------------


def _as_text(report: Report) -> Iterator[str]:
    yield f"{_place(report.file, report.line)}: class {report.class_name} {_verdict(report)}"
    if report.methods:
        yield ""
        yield from _table(report)
    if report.payload:
        yield ""
        yield f"  payload: {report.payload}"
    if report.findings:
        yield ""
    for finding in report.findings:
        yield _line(report, finding)


def _verdict(report: Report) -> str:
    if any(finding.code is Code.SYNTAX for finding in report.findings):
        return "cannot be read: the file has a syntax error"
    counts = [
        f"{report.count(severity)} {severity}{'s' if report.count(severity) > 1 else ''}"
        for severity in Severity
        if report.count(severity)
    ]
    would = "would load" if report.loads else "would be refused"
    return f"{would}: {', '.join(counts)}" if counts else would


def _table(report: Report) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [_HEAD]
    for method in report.methods:
        takes = "" if method.name == "load" else method.takes or "?"
        rows.append((method.name, str(method.line), method.kind or "?", takes, method.cancel))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        cells[1] = row[1].rjust(widths[1])
        yield f"  {'  '.join([*cells, row[-1]])}"


def _line(report: Report, finding: Finding) -> str:
    place = _place(finding.file or report.file, finding.line)
    return f"{place}: {finding.severity}: {finding.text} [{finding.code}]"


def _place(file: Path, line: int) -> str:
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"{shown}:{line}" if line else str(shown)


# -- for machines ----------------------------------------------------------------------------------


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "file": str(report.file),
        "class": report.class_name,
        "line": report.line,
        "loads": report.loads,
        "payload_parsed": report.payload_needed,
        "methods": [asdict(method) for method in report.methods],
        "findings": [
            asdict(finding) | {"file": str(finding.file or report.file)}
            for finding in report.findings
        ],
    }
