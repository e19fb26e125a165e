"""The command line of `streamkit chaos`, and the run as a whole."""

from __future__ import annotations

import argparse
import importlib
import ipaddress
import json
import shlex
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import urlsplit

import anyio

from streamkit._core import now
from streamkit.server.demo._progress import Progress
from streamkit.testing._faults import Fault, Seen

from ._alone import Alone, Cell, Limits
from ._crowd import Crowd
from ._html import as_html
from ._plan import Plan, make_plan
from ._profiles import PROFILES, BadTemplate, Profile, load_template
from ._report import as_json, as_text
from ._target import PROMPTS, CannotTest, Target
from ._verdict import Results, is_good, judge
from ._watch import Watch

_DESCRIPTION: Final = """\
Drops clients on a streaming server in every way and phase: one by one, then in a storm beside
others that stay, then many at the same time. Judges by what can be seen from outside: the server's
counters, the answers of those who stay, and a short request.

Only the named server is contacted. `streamkit chaos proxy` is a proxy with faults.
"""
_EPILOG: Final = """\
a fault is WAY[:NUMBER]@PHASE[:NUMBER], as in rst@event:3 (docs/reference/chaos.md has them all)

exit status: 0 the verdict is good, 1 it is not or could not be found, 2 wrong usage
"""


class Misuse(Exception):
    """The command line asks for what will not be done; the message says why."""


def run(arguments: Sequence[str]) -> int:
    """Run ``streamkit chaos``; return its exit status."""
    if arguments and arguments[0] == "proxy":
        status: int = importlib.import_module("streamkit.testing._proxy").main(arguments[1:])
        return status
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
    sys.stdout.writelines(f"{line}\n" for line in as_text(results))
    try:
        if given.json:
            given.json.write_text(json.dumps(as_json(results), indent=2) + "\n")
        if given.html:
            given.html.write_text(as_html(results))
    except OSError as error:
        return _fail(f"cannot write {error.filename}: {error.strerror}", 1)
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
    add("--target-profile", choices=PROFILES, help="what is asked, and where the counters are")
    add("--request-template", type=Path, metavar="FILE", help="the same, for any other server")
    add("--model", metavar="NAME", help="the model to ask for, if not the first that is listed")
    add("--header", action="append", default=[], metavar="NAME:VALUE", help="sent along")
    add("--fault", action="append", default=[], type=_fault, metavar="FAULT", help="only these")
    add("--clients", type=_count, default=40, metavar="N", help="of the storm [40]")
    add("--concurrency", type=_count, default=8, metavar="N", help="at a time [8]")
    add("--duration", type=_seconds, default=60.0, metavar="S", help="the storm's, at most [60]")
    add("--stop-within", type=_seconds, default=5.0, metavar="S", help="to be stopped in [5]")
    add("--stay", type=_seconds, default=2.0, metavar="S", help="of who stops reading [2]")
    add("--timeout", type=_seconds, default=30.0, metavar="S", help="of each wait [30]")
    add("--seed", type=int, default=0, metavar="N", help="decides who does what [0]")
    add("--http2", action="store_true", help="it speaks HTTP/2 without TLS: its faults as well")
    add("--insecure", action="store_true", help="believe any certificate")
    add("--i-own-this-server", action="store_true", help="it is not on this machine, and mine")
    add("--json", type=Path, metavar="FILE", help="write all that was measured there")
    add("--html", type=Path, metavar="FILE", help="write a report with pictures there")
    return made


def prepare(given: argparse.Namespace) -> tuple[Target, Plan]:
    """The server and the plan that a command line means.

    Raises:
        Misuse: It names another machine, or faults that this server was not said to have.
        BadTemplate: The request template cannot be used.
    """
    url: str = given.url
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Misuse(f"{url!r} is not http://HOST:PORT or https://HOST:PORT")
    if not given.i_own_this_server and not is_loopback(parts.hostname):
        raise Misuse(
            f"{parts.hostname} is not this machine. This drops connections and loads the server "
            "it is pointed at; if it is yours, say --i-own-this-server"
        )
    if given.http2 and parts.scheme == "https":
        raise Misuse("--http2 is without TLS here (prior knowledge): it needs an http URL")
    over = [*(["h2"] if given.http2 else []), *(["tls"] if parts.scheme == "https" else [])]
    for fault in given.fault:
        if fault.over and fault.over not in over:
            needs = {"h2": "--http2", "tls": "an https URL"}[fault.over]
            raise Misuse(f"{fault} needs {needs}")
    target = Target(
        given.url,
        _profile(given),
        seed=given.seed,
        timeout=given.timeout,
        headers=_headers(given.header),
        tls=_tls(given),
    )
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
    crowd = Crowd(target, watch, limits, long=alone.long, expected=expected)
    progress = _progress(plan, sys.stderr)
    async with watch.looking() if watch else nullcontext():
        control = await alone.control() if watch else None
        cells: list[Cell] = []
        for number, fault in enumerate(plan.cells):
            cells.append(await alone.run(number, fault))
            progress.done("one by one")
        storm = await crowd.storm(plan, given.duration, lambda: progress.done("storm"))
        burst = await crowd.burst(plan.burst)
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
        storm=storm,
        burst=burst,
        running=tuple((count.at, count.running) for count in watch.counts) if watch else (),
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
    planned = {"one by one": len(plan.cells), "storm": len(plan.clients), "burst": 1}
    return Progress(out, "dropping clients", planned, "done")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, without asking anybody."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _profile(given: argparse.Namespace) -> Profile:
    if given.request_template and given.target_profile:
        raise Misuse("give --target-profile or --request-template, not both")
    if given.request_template:
        return load_template(given.request_template)
    return PROFILES[given.target_profile or "streamkit"]


def _tls(given: argparse.Namespace) -> ssl.SSLContext | None:
    if not given.insecure:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _headers(lines: Sequence[str]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise Misuse(f"--header takes NAME:VALUE, got {line!r}")
        headers[name.strip().lower()] = value.strip()
    return headers


def _with_seed(arguments: Sequence[str], seed: int) -> list[str]:
    named = any(each == "--seed" or each.startswith("--seed=") for each in arguments)
    return [*arguments] if named else [*arguments, "--seed", str(seed)]


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 10000, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return seconds


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"streamkit chaos: {message}\n")
    return status
