"""The command line of `streamkit doctor`, and the examination as a whole."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, TypeAlias

import anyio

from streamkit._core import now
from streamkit.server.demo._progress import Progress
from streamkit.server.demo._report_file import CannotWrite, report_file, write_report
from streamkit.testing.chaos._arguments import (
    Misuse,
    add_server_options,
    count,
    seconds,
    targets_of,
)
from streamkit.testing.chaos._profiles import BadTemplate
from streamkit.testing.chaos._target import CannotTest

from . import _leaves, _request, _silence, _streams
from ._findings import Finding, is_well
from ._identity import identify
from ._patient import SHORT, Limits, Patient
from ._report import Report, as_json, as_text

_DESCRIPTION: Final = """\
Asks a streaming server through its proxy, as its clients do, and says what the proxy does: whether
bytes wait in it, whether and how late the server hears that a client has left, whether silence and
heartbeats survive it, and which setting to change.

Only URL, and the server that --backend names, are contacted.
"""
_EPILOG: Final = """\
exit status: 0 all is well, 1 it is not or could not be found out, 2 wrong usage
"""
Check: TypeAlias = Callable[[Patient], Awaitable[Finding]]

_ONE_BY_ONE: Final[Mapping[str, Check]] = {
    "request": _request.untouched,
    "buffering": _streams.buffering,
    "compression": _streams.compression,
    "leave: streaming": _leaves.streaming,
    "leave: no byte yet": _leaves.first_byte,
    "leave: one answer": _leaves.one_answer,
    "half-close": _leaves.half_close,
}
_SIDE_BY_SIDE: Final[Mapping[str, Check]] = {
    "silence": _silence.idle,
    "heartbeats": _silence.heartbeats,
}
CHECKS: Final = (*_ONE_BY_ONE, *_SIDE_BY_SIDE)


def run(arguments: Sequence[str]) -> int:
    """Run ``streamkit doctor``; return its exit status."""
    given = parser().parse_args(arguments)
    try:
        patient = prepare(given)
    except (Misuse, BadTemplate) as error:
        return _fail(str(error), 2)
    try:
        report = anyio.run(examine, patient, given.model, given.check)
    except CannotTest as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    sys.stdout.writelines(f"{line}\n" for line in as_text(report))
    if given.json:
        try:
            write_report(given.json, as_json(report))
        except CannotWrite as error:
            return _fail(str(error), 1)
    return 0 if is_well(report.findings) else 1


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(
        prog="streamkit doctor",
        usage="streamkit doctor [options] URL",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("url", metavar="URL", help="as clients reach it: http://HOST:PORT, or with the path")
    add("--backend", metavar="URL", help="the server behind the proxy: tells whose doing it is")
    add_server_options(made)
    add("--idle", type=_or_none, default=65.0, metavar="S", help="silence to survive; 0: none [65]")
    add("--stop-within", type=seconds, default=3.0, metavar="S", help="for a leave to arrive [3]")
    add("--late", type=seconds, default=0.5, metavar="S", help="from when it is called late [0.5]")
    add("--stream", type=seconds, default=2.0, metavar="S", help="of the streams looked at [2]")
    add("--repeat", type=count, default=3, metavar="N", help="times that each is tried [3]")
    add("--max-tokens", type=_tokens, default=8_192, metavar="N", help="of an answer [8192]")
    add("--check", action="append", default=[], choices=CHECKS, help="only these")
    add("--json", type=report_file, metavar="FILE", help="write all that was measured there")
    return made


def prepare(given: argparse.Namespace) -> Patient:
    """The server that a command line means, and what shall be tried.

    Raises:
        Misuse: It names another machine, or is no URL.
        BadTemplate: The request template cannot be used.
    """
    urls = [given.url, *([given.backend] if given.backend else [])]
    through, *behind = targets_of(given, urls)
    limits = Limits(
        late=given.late,
        within=given.stop_within,
        idle=given.idle,
        stream=given.stream,
        repeat=given.repeat,
        tokens=given.max_tokens,
    )
    return Patient(through, behind[0] if behind else None, limits)


async def examine(patient: Patient, model: str | None, only: Collection[str] = ()) -> Report:
    """Look at everything, or only at what is named.

    Raises:
        CannotTest: The server does not answer, or does not stream.
    """
    began_at = now()
    findings: list[Finding] = []
    checks = {name: check for name, check in _ONE_BY_ONE.items() if not only or name in only}
    waits = {name: check for name, check in _SIDE_BY_SIDE.items() if not only or name in only}
    if not patient.limits.idle:
        waits = {}
    async with patient.opened(model):
        names = dict.fromkeys((*checks, *waits), 1)
        progress = Progress(sys.stderr, "examining", names, "done")
        for name, check in checks.items():
            findings.append(await check(patient))
            progress.done(name)
        findings += await _side_by_side(patient, waits, progress)
        proxy = await identify(patient.through.ask(0, SHORT), patient.sample.head)
    witness = patient.witness.name if patient.witness else f"nobody: {patient.blind}"
    return Report(
        url=patient.through.url,
        backend=patient.direct.url if patient.direct else None,
        proxy=proxy,
        witness=witness,
        findings=findings,
        seconds=now() - began_at,
    )


async def _side_by_side(
    patient: Patient, checks: Mapping[str, Check], progress: Progress
) -> list[Finding]:
    """Checks that do nothing but wait; what they find is in their order."""
    found: dict[str, Finding] = {}

    async def look(name: str, check: Check) -> None:
        found[name] = await check(patient)
        progress.done(name)

    async with anyio.create_task_group() as tasks:
        for name, check in checks.items():
            tasks.start_soon(look, name, check)
    return [found[name] for name in checks]


def _or_none(text: str) -> float:
    return 0.0 if text in {"0", "off"} else seconds(text)


def _tokens(text: str) -> int:
    if not text.isdecimal() or not SHORT <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number from {SHORT} to 1000000, got {text!r}")
    return int(text)


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"streamkit doctor: {message}\n")
    return status
