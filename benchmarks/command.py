"""The command line of the suite."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import output, report
from benchmarks.bench import LONG, SHORT, Bench
from benchmarks.client import raise_file_limit
from benchmarks.measures import growth, idle, leaving, requests, start, system, tokens
from benchmarks.noise import TooNoisy, Watch
from benchmarks.peers import DEFAULT, PEERS, QUICK

MEASURES = {
    "tokens": tokens.measure,
    "leaving": leaving.measure,
    "idle": idle.measure,
    "requests": requests.measure,
    "growth": growth.measure,
    "system": system.measure,
    "start": start.measure,
}
NOISY = 3  # exit status


def main(arguments: Sequence[str]) -> int:
    """Measure, print the tables, write them; return the exit status."""
    options = _parser().parse_args(arguments)
    plan = SHORT if options.short else LONG
    if options.rounds:
        plan = replace(plan, rounds=options.rounds, slow_rounds=options.rounds)
    peers = options.peers or (QUICK if options.short else DEFAULT)
    bench = Bench(plan, Watch(tolerant=options.even_if_noisy), peers)
    raise_file_limit()
    began = time.monotonic()
    try:
        for name in options.only or MEASURES:
            print(f"{name}, after {time.monotonic() - began:.0f} s …", file=sys.stderr, flush=True)
            MEASURES[name](bench)
    except TooNoisy as error:
        print(f"not compared: this machine is too noisy. {error}", file=sys.stderr)
        print("wait until it is quiet, or say --even-if-noisy, and compare nothing closely")
        return NOISY
    seconds = time.monotonic() - began
    print(report.whole(bench, seconds))
    if options.out:
        output.write(bench, seconds, options.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="under five minutes, fewer peers")
    parser.add_argument("--only", nargs="+", choices=MEASURES, metavar="MEASURE", help="of these")
    parser.add_argument("--peers", nargs="+", choices=PEERS, metavar="PEER", help="with these")
    parser.add_argument("--rounds", type=int, help="turns of each contender")
    parser.add_argument("--even-if-noisy", action="store_true", help="compare all the same")
    parser.add_argument(
        "--out", type=Path, help="a folder for tables and plots, say docs/benchmarks"
    )
    return parser
