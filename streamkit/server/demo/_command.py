"""The command line of a demo, and its parts put together."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final, TextIO

import anyio

from streamkit._core import now

from ._plain import Manner
from ._plan import DEFAULT, FEWEST, MOST, Scene, Visit, make_plan
from ._progress import Progress
from ._report import report
from ._report_file import CannotWrite, report_file, write_report
from ._results import Results, Run, planned, problems
from ._servers import CannotStart, Server, plain, running, serve
from ._sides import NAMES, on_plain, on_streamkit
from ._talk import NoAnswer

_DESCRIPTION: Final = """\
Starts `streamkit serve` over the fake engine on loopback, opens real connections, drops them in
every phase and in several ways beside others that stay; then has the same clients visit the same
engines behind a plain Starlette app, and prints what became of it.
"""
_EPILOG: Final = """\
The plain app is run twice: over an engine that stops when the iterator over its output is dropped
(as vLLM's does), and over one that runs on until it is told (as TensorRT-LLM's does).

exit status: 0 the books balance and nothing leaked, 1 they do not or the demo could not run,
2 wrong usage
"""


def run(arguments: Sequence[str]) -> int:
    """Run ``streamkit demo``; return its exit status."""
    given = _parser().parse_args(arguments)
    try:
        results = anyio.run(_demonstrate, given.clients, given.seed, sys.stdout)
    except (CannotStart, NoAnswer) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted; all servers have been stopped")
    except ExceptionGroup as group:
        if group.split(NoAnswer)[1] is not None:
            raise
        return _fail(f"the demo broke off: {_first(group)}")
    status = conclude(results, sys.stdout)
    if given.json is None:
        return status
    try:
        write_report(given.json, asdict(results))
    except CannotWrite as error:
        return _fail(str(error))
    return status


def conclude(results: Results, out: TextIO) -> int:
    """Print the results; return the exit status that they deserve."""
    out.writelines(f"{line}\n" for line in ("", *report(results)))
    return 1 if problems(results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamkit demo",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--clients",
        type=_clients,
        default=DEFAULT,
        metavar="N",
        help=f"connections, {FEWEST} to {MOST} [{DEFAULT}]",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="decides who comes when and leaves how [0]"
    )
    parser.add_argument(
        "--json", type=report_file, metavar="FILE", help="write everything that was measured there"
    )
    return parser


def _clients(text: str) -> int:
    if not text.isdecimal() or not FEWEST <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"expected a number from {FEWEST} to {MOST}, got {text!r}")
    return int(text)


async def _demonstrate(clients: int, seed: int, out: TextIO) -> Results:
    start = now()
    plan = make_plan(clients, seed)
    out.write(f"{clients} clients, seed {seed}; starting servers\n")
    commands: dict[Scene | Manner, tuple[str, ...]] = {
        **{scene: serve(options) for scene, options in plan.engines.items()},
        **{manner: plain(manner, plan.engines) for manner in Manner},
    }
    async with running(commands) as processes:
        servers = {scene: processes[scene] for scene in plan.engines}
        apps = {manner: processes[manner] for manner in Manner}
        progress = Progress(out, "on streamkit serve", planned(plan), "done")
        ours = await on_streamkit(plan, servers, lambda visit: progress.done(visit.aim))
        others = await _both_plain(ours.visits, apps, out)
    return Results(
        clients=clients,
        seed=seed,
        seconds=now() - start,
        plan=planned(plan),
        cuts=ours.cuts,
        streamkit=ours.run,
        plain=others,
        totals=ours.totals,
        after=ours.after,
    )


async def _both_plain(
    visits: Sequence[Visit], apps: Mapping[Manner, Server], out: TextIO
) -> list[Run]:
    """At once: each waits for its engines nearly all of the time."""
    counts = {NAMES[manner]: len(visits) for manner in apps}
    progress = Progress(out, "the same on a plain Starlette app", counts, "done")
    runs: dict[Manner, Run] = {}

    async def run(manner: Manner) -> None:
        name = NAMES[manner]
        runs[manner] = await on_plain(visits, name, apps[manner], lambda _: progress.done(name))

    async with anyio.create_task_group() as tasks:
        for manner in apps:
            tasks.start_soon(run, manner)
    return [runs[manner] for manner in apps]


def _first(error: BaseException) -> BaseException:
    inside: Sequence[BaseException] = getattr(error, "exceptions", ())
    return _first(inside[0]) if inside else error


def _fail(message: str) -> int:
    sys.stderr.write(f"streamkit: {message}\n")
    return 1
