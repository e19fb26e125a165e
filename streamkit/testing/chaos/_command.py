"""The command line of `streamkit chaos`, and the run as a whole."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from typing import Final, TextIO

import anyio

from streamkit._core import now
from streamkit.server.demo._progress import Progress
from streamkit.server.demo._report_file import CannotWrite, report_file, write_report
from streamkit.testing._faults import Fault, Seen

from ._alone import Alone, Cell, Limits
from ._arguments import (
    Misuse,
    add_server_options,
    count,
    seconds,
    targets_of,
)
from ._crowd import Together
from ._html import as_html
from ._plan import Plan, make_plan
from ._profiles import BadTemplate
from ._report import as_json, as_text
from ._target import PROMPTS, CannotTest, Target
from ._verdict import Results, is_good, judge
from ._watch import Watch

_DESCRIPTION: Final = """\
Drops clients on a streaming server in every way and phase: one by one, then in a crowd beside
others that stay, then many at the same time. Judges by what can be seen from outside: the server's
counters, the answers of those who stay, and a short request.

Only the named server is contacted. `streamkit chaos proxy` is a proxy with faults.
"""
_EPILOG: Final = """\
a fault is WAY[:NUMBER]@PHASE[:NUMBER], as in rst@event:3 (docs/reference/chaos.md has them all)

exit status: 0 the verdict is good, 1 it is not or could not be found, 2 wrong usage
"""


def run(arguments: Sequence[str]) -> int:
    """Run ``streamkit chaos``; return its exit status."""
    if arguments and arguments[0] == "proxy":
        status: int = importlib.import_module("streamkit.testing._proxy").main(arguments[1:])
        return status
    if arguments and get_close_matches(arguments[0], ["proxy"]):
        return _fail(f"{arguments[0]!r} is no URL; did you mean `streamkit chaos proxy`?", 2)
    given = parser().parse_args(arguments)
    try:
        target, plan = prepare(given)
    except (Misuse, BadTemplate) as error:
        return _fail(str(error), 2)
    again = shlex.join(["streamkit", "chaos", *_with_seed(arguments, plan.seed)])
    limits = Limits(stop=given.stop_within, stay=given.stay)
    try:
        results = anyio.run(perform, target, plan, limits, given, again)
    except CannotTest as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail(f"interrupted; again: {again}", 1)
    return _conclude(results, given)


def _conclude(results: Results, given: argparse.Namespace) -> int:
    """Print and write what came of it; return the exit status that it deserves."""
    sys.stdout.writelines(f"{line}\n" for line in as_text(results))
    try:
        if given.json:
            write_report(given.json, as_json(results))
        if given.html:
            write_report(given.html, as_html(results))
    except CannotWrite as error:
        return _fail(str(error), 1)
    return 0 if is_good(judge(results)) else 1


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(
        prog="streamkit chaos",
        usage="streamkit chaos [options] URL",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("url", metavar="URL", help="http://HOST:PORT, or with the path of the route that streams")
    add_server_options(made)
    add("--fault", action="append", default=[], type=_fault, metavar="FAULT", help="only these")
    add("--clients", type=count, default=40, metavar="N", help="of the crowd [40]")
    add("--concurrency", type=count, default=8, metavar="N", help="at a time [8]")
    add("--duration", type=seconds, default=60.0, metavar="S", help="the crowd's, at most [60]")
    add("--stop-within", type=seconds, default=5.0, metavar="S", help="to be stopped in [5]")
    add("--stay", type=seconds, default=2.0, metavar="S", help="of who stops reading [2]")
    add("--seed", type=int, default=0, metavar="N", help="decides who does what [0]")
    add("--http2", action="store_true", help="it speaks HTTP/2 without TLS: its faults as well")
    add("--json", type=report_file, metavar="FILE", help="write all that was measured there")
    add("--html", type=report_file, metavar="FILE", help="write a report with pictures there")
    return made


def prepare(given: argparse.Namespace) -> tuple[Target, Plan]:
    """The server and the plan that a command line means.

    Raises:
        Misuse: It names another machine, or faults that this server was not said to have.
        BadTemplate: The request template cannot be used.
    """
    [target] = targets_of(given, [given.url], seed=given.seed)
    encrypted = given.url.lower().startswith("https:")
    if given.http2 and encrypted:
        raise Misuse("--http2 is without TLS here (prior knowledge): it needs an http URL")
    over = [*(["h2"] if given.http2 else []), *(["tls"] if encrypted else [])]
    for fault in given.fault:
        if fault.over and fault.over not in over:
            needs = {"h2": "--http2", "tls": "an https URL"}[fault.over]
            raise Misuse(f"{fault} needs {needs}")
    plan = make_plan(given.seed, given.clients, given.concurrency, faults=given.fault, over=over)
    return target, plan


async def perform(
    target: Target, plan: Plan, limits: Limits, given: argparse.Namespace, again: str
) -> Results:
    """Do all of it.

    Raises:
        CannotTest: The server does not answer as its profile says.
    """
    began_at = now()
    await target.open(given.model)
    sample, expected = await _baseline(target)
    watch = Watch(target) if target.counts else None
    alone = Alone(target, watch, limits, sample)
    together = Together(target, watch, limits, long=alone.long, expected=expected)
    progress = _progress(plan, sys.stderr)
    async with watch.looking() if watch else nullcontext():
        control = await alone.control() if watch else None
        cells: list[Cell] = []
        for number, fault in enumerate(plan.cells):
            cells.append(await alone.run(number, fault))
            progress.done("one by one")
        crowd = await together.crowd(plan, given.duration, lambda: progress.done("crowd"))
        burst = await together.burst(plan.burst)
        progress.done("burst")
    return Results(
        url=target.url,
        plan=plan,
        limits=limits,
        again=again,
        began_at=began_at,
        ended_at=now(),
        control=control,
        same=expected is not None,
        cells=tuple(cells),
        crowd=crowd,
        burst=burst,
        running=tuple((count.at, count.running) for count in watch.counts) if watch else (),
        wrong=watch.grown() if watch and target.tells_wrong else None,
        looks_failed=watch.failed if watch else 0,
    )


async def _baseline(target: Target) -> tuple[Seen, dict[int, str] | None]:
    """An answer, and what each prompt's is; None: it differs from time to time."""
    answers: dict[int, str] = {}
    same = True
    sample = await target.answer(0)  # and whatever the first request has to warm up
    for prompt in range(len(PROMPTS)):
        first, second = await target.answer(prompt), await target.answer(prompt)
        for seen in (first, second):
            if seen.error or seen.status != 200 or not seen.complete:
                what = seen.error or f"status {seen.status}: {bytes(seen.body[:200])!r}"
                raise CannotTest(f"{target.url} does not answer a plain request: {what}")
        answers[prompt] = target.text_of(first)
        same = same and answers[prompt] == target.text_of(second)
        sample = first
    return sample, answers if same else None


def _progress(plan: Plan, out: TextIO) -> Progress:
    planned = {"one by one": len(plan.cells), "crowd": len(plan.clients), "burst": 1}
    return Progress(out, "dropping clients", planned, "done")


def _with_seed(arguments: Sequence[str], seed: int) -> list[str]:
    named = any(each == "--seed" or each.startswith("--seed=") for each in arguments)
    return [*arguments] if named else [*arguments, "--seed", str(seed)]


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"streamkit chaos: {message}\n")
    return status
