"""One client does one fault, and the engine's own log says when its work had stopped."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio

from benchmarks.matrix.cells import END, LATE, PATIENCE, READING, WAITING, Case
from benchmarks.matrix.site import Site
from streamkit.testing import Ask, Fault, Seen, open_connection, visit

STAYS: Final = frozenset({"stop_reading", "slow", "vanish", "half_close"})
STALLS: Final = frozenset({"stop_reading", "slow"})
WORKS: Final = frozenset({"queued", "prefill", *READING, *END})
SHORT: Final = 8  # tokens, where the end is waited for
LONG: Final = 900_000
PROMPT: Final = "w " * 30
LONG_PROMPT: Final = "w " * 16_000  # ten seconds of prefill
SOME: Final = "w " * 800  # half a second of it: for who stalls, so that there is a write
PAD: Final = 16_000  # bytes beside each token, so that the kernel's buffers are full soon
AHEAD: Final = 0.4  # seconds for which another one keeps the slot from who stalls behind it


class Wrong(Exception):
    """A run did not do what its cell says; the message says what it did."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        ms: From the client's act to the end of what was there.
        proof: Who says so: ``engine`` (its log), ``app`` (no work had begun: the request has left
            it), ``kernel`` (it never came there: its connection is gone).
        since_ms: The same from when the bound's time began, if that is not the act.
        steps: Of the engine, after it had been told.
        noticed: Before its connection had ended; only asked of those that stay.
    """

    ms: float
    proof: str
    since_ms: float
    steps: int
    noticed: bool = True


async def measure(site: Site, way: str, phase: str, case: Case) -> Run:
    """Do it once.

    Raises:
        Wrong: The client did not come to the phase, or the engine was told more or less than once.
    """
    stalls = way in STALLS and phase not in END
    gone = phase in {"connecting", "headers", *END}
    async with _ahead(site, brief=stalls) if phase == "queued" else _nobody() as others:
        state = await site.ask("begin", others=others)
        if state["sockets"] > state["floor"] or state["held"] > others:
            raise Wrong(f"something was left before: {state}")
        report: dict[str, Any] = {}
        patience = PATIENCE if case.kind == "unseen" else case.seconds + LATE + 4 * stalls

        async def stay() -> None:
            others_now = 0 if stalls else others
            report.update(await site.ask("rest", others=others_now, within=patience, gone=gone))

        seen = await visit(_ask(site, way, phase), _fault(way, phase), stay=stay)
        noticed = report.get("rested", True) if way in STAYS else True
        if not report or not noticed:
            within = case.seconds + LATE
            report.update(await site.ask("rest", others=others, within=within, gone=gone))
    check(way, phase, seen, report)
    return _run(seen, report, noticed=noticed)


def _ask(site: Site, way: str, phase: str) -> Ask:
    stalls = way in STALLS
    prompt = (SOME if stalls else LONG_PROMPT) if phase in {"first_byte", "prefill"} else PROMPT
    query = f"pad={PAD}" if stalls else "spelt=1" if phase == "code_point" else ""
    if stalls and phase == "code_point":
        query += "&spelt=1"
    return Ask(
        url=f"{site.url}/generate?{query}",
        json={"prompt": prompt, "max_tokens": SHORT if phase in END else LONG, "stream": True},
        headers={"accept": "text/event-stream"},
        tls=site.tls,
        http2=site.column.http2,
    )


def _fault(way: str, phase: str) -> Fault:
    at = {"prefill": "queued:0.1", "event": "event:3", "byte": "byte:1"}.get(phase, phase)
    amount = ":5" if way == "storm" else ""
    return Fault.parse(f"{way}{amount}@{at}")


@asynccontextmanager
async def _nobody() -> AsyncGenerator[int]:
    yield 0


@asynccontextmanager
async def _ahead(site: Site, *, brief: bool) -> AsyncGenerator[int]:
    """Somebody else has the only slot."""
    body = {"prompt": "word", "max_tokens": LONG, "stream": True}
    await site.ask("begin", others=0)
    connection = open_connection(site.url, tls=site.tls_http1)
    async with connection as client, anyio.create_task_group() as tasks:
        await client.send_request("POST", "/generate", json=body)
        await client.read_chunk()

        async def go() -> None:
            await anyio.sleep(AHEAD)
            await client.leave()

        if brief:
            tasks.start_soon(go)
        yield 1
        tasks.cancel_scope.cancel()


def check(way: str, phase: str, seen: Seen, report: Mapping[str, Any]) -> None:
    """Hold a run against what its cell says.

    Raises:
        Wrong: It did something else.
    """
    records = report["records"]
    wrong = {
        f"it was not reached ({seen.error})": not seen.reached or seen.left_at is None,
        "it ran on": not report["rested"],
        "the answer was not whole": way == "stay" and not seen.complete,
        "the engine was never asked": phase in WORKS and not records,
        "the engine was told more or less than once": not all(_once(r, phase) for r in records),
    }
    if way not in STALLS:  # those are seen again when they have stalled
        wrong["it was not queued"] = phase == "queued" and any(r["steps"] for r in records)
        wrong["it was answered"] = phase in WAITING and any(r["tokens"] for r in records)
    if said := [what for what, is_so in wrong.items() if is_so]:
        raise Wrong(f"{', '.join(said)}: {report}")


def _once(record: Mapping[str, Any], phase: str) -> bool:
    """An abort, and at most the step that was running; none for what had ended by itself."""
    end, aborts = ("completed", 0) if phase in END else ("aborted", 1)
    return (record["end"], record["aborts"]) == (end, aborts) and record["steps_after_cancel"] <= 1


def _run(seen: Seen, report: Mapping[str, Any], *, noticed: bool) -> Run:
    left_at = seen.left_at or 0.0
    if not noticed:
        left_at = seen.ended_at or 0.0
    told = [r for r in report["records"] if r["told_at"] is not None]
    if told:
        ended_at, proof = max(record["ended_at"] for record in told), "engine"
    elif report["returned_at"] and not report["records"]:
        ended_at, proof = report["returned_at"], "app"
    else:
        ended_at, proof = report["let_go_at"], "kernel"
    since = max(left_at, report["blocked_at"] or 0.0)
    steps = sum(record["steps_after_cancel"] for record in told)
    return Run(
        ms=round(1000 * (ended_at - left_at), 2),
        proof=proof,
        since_ms=round(1000 * (ended_at - since), 2),
        steps=steps,
        noticed=noticed,
    )
