"""``python -m benchmarks.soak``: a crowd at `streamkit serve`, half of it with random faults.

Exit status 1 if a byte is missing, memory grows, something is left, or the books do not balance.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from benchmarks.environments import ROOT
from benchmarks.soak import page
from benchmarks.soak.crowd import ENGINE, MODEL, Crowd, plan, undisturbed
from benchmarks.soak.judge import COMPLAINTS, SLOPE_LIMIT, Evidence, judge
from benchmarks.soak.served import Sample, Served, serving

SAMPLE_EVERY = 0.25  # seconds
REST_LIMIT = 60.0
SETTLE_LIMIT = 15.0  # of connections that nobody closes: uvicorn waits for 5 s
GUESTS = 20  # that come before all others, so that what is made once has been made
SETTINGS = ("--loss-bound", "3", "--max-queued", "100000", "--remembered", "1000")


async def soak(served: Served, given: argparse.Namespace) -> Evidence:
    """Let the crowd come, watch, and wait until all is quiet again."""
    kinds = MODEL if given.target else ENGINE
    words = await undisturbed(served.url, kinds)
    guests = Crowd(served.url, given.at_once, given.stay)
    await guests.come(plan(given.seed + 1, GUESTS, 0.1, kinds))
    await served.at_rest(REST_LIMIT)
    before = await settled(served)
    crowd, samples = Crowd(served.url, given.at_once, given.stay), [before]
    clients = plan(given.seed, given.clients, given.minutes * 60, kinds)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, served, samples, crowd, len(clients))
        await crowd.come(clients)
        tasks.cancel_scope.cancel()
    rested = await served.at_rest(REST_LIMIT)
    after = await settled(served, before)
    crowd.seen += guests.seen
    return Evidence(
        crowd=crowd,
        words=words,
        before=before,
        after=after,
        samples=[*samples, after],
        rested=rested,
        metrics=await served.metrics(),
        engine=await served.engine(),
        slope_limit=given.slope,
    )


async def settled(served: Served, like: Sample | None = None) -> Sample:
    """Connections that were kept alive end, and threads that wait for work.

    Where there is another sample to be ``like``, more than that one had is waited for to the end.
    """
    fewest = await served.sample()
    with anyio.move_on_after(SETTLE_LIMIT):
        quiet = 0
        while quiet < 3 or (like and (fewest.fds > like.fds or fewest.threads > like.threads)):
            await anyio.sleep(SAMPLE_EVERY)  # there is no event that comes out of the process
            sample = await served.sample()
            fewer = sample.fds < fewest.fds or sample.threads < fewest.threads
            fewest, quiet = (sample, 0) if fewer else (fewest, quiet + 1)
    return fewest


async def watch(served: Served, samples: list[Sample], crowd: Crowd, count: int) -> None:
    """Take a sample again and again, and say how far it is."""
    for number in itertools.count():
        await anyio.sleep(SAMPLE_EVERY)
        samples.append(await served.sample())
        if number % 40 == 0:
            last = samples[-1]
            said = f"{crowd.done:,} of {count:,} clients, {crowd.here} here"
            said += f", {last.rss / 1024:.1f} MiB, {last.fds} descriptors"
            print(f"  {last.at:6.0f} s: {said}", file=sys.stderr, flush=True)


def run(given: argparse.Namespace, again: str) -> page.Report:
    """All of it; the server has ended when this returns."""
    began_at = time.monotonic()
    options = [f"--engine-option={one}" for one in (f"step_ms={given.step_ms:g}", "slots=64")]
    flags = [given.target, "--predict-concurrency=64"] if given.target else options
    with tempfile.TemporaryDirectory() as name, serving([*flags, *SETTINGS], Path(name)) as served:
        evidence = anyio.run(soak, served, given)
        evidence.status = served.stop()
        evidence.access = served.access()
        evidence.complaints = [
            line
            for line in served.lines()
            if not line.startswith("{") and any(word in line for word in COMPLAINTS)
        ]
    return page.Report(evidence, judge(evidence), again, round(time.monotonic() - began_at))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    add = made.add_argument
    add("--clients", type=int, default=10_000, help="[10000]")
    add("--minutes", type=float, default=8.0, help="in which they come, 20 at most [8]")
    add("--at-once", type=int, default=2_000, help="that may be there [2000]")
    add("--seed", type=int, default=0, help="decides who comes when and does what [0]")
    add("--step-ms", type=float, default=10.0, help="of the engine [10]")
    add("--stay", type=float, default=4.0, help="seconds, of who stops reading or vanishes [4]")
    add("--slope", type=float, default=SLOPE_LIMIT, help=f"KiB/1,000 requests [{SLOPE_LIMIT:g}]")
    add("--target", help="a model class in the engine's place, as `streamkit serve` takes it")
    add("--out", type=Path, default=ROOT / "docs" / "reference", help="of page and JSON")
    add("--no-page", action="store_true", help="write nothing")
    return made


def main(arguments: Sequence[str]) -> int:
    made = parser()
    given = made.parse_args(arguments)
    if not 0 < given.minutes <= 20:
        made.error(f"--minutes takes a number above 0, 20 at most, got {given.minutes:g}")
    if given.clients < 2 or given.at_once < 1:
        made.error("--clients takes 2 or more, --at-once 1 or more")
    known = [*arguments] if "--seed" in arguments else [*arguments, "--seed", str(given.seed)]
    report = run(given, shlex.join(["python", "-m", "benchmarks.soak", *known]))
    print("\n".join(page.as_text(report)))
    if not given.no_page:
        page.write(report, given.out)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
