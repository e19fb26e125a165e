"""The report of a run: a table for people, plain values for machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ._alone import Cell
from ._crowd import Guest
from ._verdict import Results, is_good, judge

_WORDS: Final = {"good": "good", "bad": "BAD", "unknown": "not known"}


def as_text(results: Results) -> Iterator[str]:
    """The report, line by line."""
    yield f"chaos at {results.url}, seed {results.plan.seed}"
    yield ""
    width = max(len(cell.fault) for cell in results.cells) if results.cells else 0
    for cell in results.cells:
        yield f"  {cell.fault:{width}}  {cell.state:9}  {describe(cell)}"
    yield ""
    checks = judge(results)
    width = max(len(check.name) for check in checks)
    for check in checks:
        yield f"  {check.name:{width}}  {_WORDS[check.word]:9}  {check.detail}"
    yield ""
    if results.wasted is not None:
        yield f"  {results.wasted:g} tokens at most were made for clients that had gone"
    good = is_good(checks)
    yield f"verdict: {'good' if good else 'BAD'} in {results.ended_at - results.began_at:.0f} s"
    if not good:
        yield f"again:   {results.again}"


def describe(cell: Cell) -> str:
    """The figures of a cell."""
    parts: list[str] = []
    if cell.after is not None:
        parts.append(f"after {cell.after * 1_000:.0f} ms")
    if cell.tokens is not None:
        parts.append(f"{cell.tokens:g} tokens")
    if cell.noticed is not None:
        parts.append("while it stayed" if cell.noticed else "once its connection had ended")
    if cell.note:
        parts.append(cell.note)
    return ", ".join(parts)


def as_json(results: Results) -> dict[str, Any]:
    """The report as plain values; instants are seconds since the start of the run."""
    checks = judge(results)
    start, burst, crowd = results.began_at, results.burst, results.crowd
    return {
        "url": results.url,
        "seed": results.plan.seed,
        "again": results.again,
        "verdict": "good" if is_good(checks) else "bad",
        "seconds": round(results.ended_at - start, 3),
        "stop_within": results.limits.stop,
        "checks": {check.name: {"word": check.word, "detail": check.detail} for check in checks},
        "plan": {
            "cells": [str(fault) for fault in results.plan.cells],
            "clients": [
                {"fault": str(client.fault), "prompt": client.prompt, "pause": client.pause}
                for client in results.plan.clients
            ],
        },
        "cells": [_cell(cell, start) for cell in results.cells],
        "crowd": {
            "planned": crowd.planned,
            "came": len(crowd.guests),
            "rested_after": crowd.stop.after if crowd.stop else None,
            "clients": [_guest(guest, start) for guest in crowd.guests],
        },
        "burst": {
            "clients": burst.clients,
            "idle": burst.idle,
            "loaded": burst.loaded,
            "after": burst.after,
            "rested_after": burst.stop.after if burst.stop else None,
        },
        "wasted_tokens": results.wasted,
        "wrong": results.wrong,
        "looks_failed": results.looks_failed,
        "running": [[round(at - start, 3), running] for at, running in results.running],
    }


def _cell(cell: Cell, start: float) -> dict[str, Any]:
    return {
        "fault": cell.fault,
        "state": cell.state,
        "after": cell.after,
        "noticed": cell.noticed,
        "tokens": cell.tokens,
        "note": cell.note,
        **(instants(cell.seen, start) if cell.seen else {}),
    }


def _guest(guest: Guest, start: float) -> dict[str, Any]:
    whole = guest.whole if guest.client.stays else None
    return {"fault": str(guest.client.fault), "whole": whole, **instants(guest.seen, start)}


def instants(seen: Any, start: float) -> dict[str, Any]:
    """When what happened to a client, in seconds since the start of the run."""
    names = ("began_at", "connected_at", "sent_at", "first_byte_at", "left_at", "ended_at")
    times = {name: getattr(seen, name) for name in names}
    since = {name: None if at is None else round(at - start, 4) for name, at in times.items()}
    return {
        "status": seen.status,
        "bytes": len(seen.body),
        "complete": seen.complete,
        "error": seen.error,
        **since,
    }
