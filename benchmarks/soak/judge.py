"""What a soak must show, as checks that can fail: bytes, memory, leaks, books, a clean log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.soak.crowd import Client, Crowd, expected
from benchmarks.soak.served import Sample, sum_of
from streamkit.testing import Seen

SLOPE_LIMIT: Final = 256.0  # KiB of memory for each 1,000 requests, in the second half
COMPLAINTS: Final = (
    "Traceback",
    "never retrieved",
    "never awaited",
    "was destroyed",
    "do not balance",
    "quarantine",
)
_TERMINAL: Final = frozenset({"finished", "cancelled", "failed"})


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    name: str
    good: bool
    detail: str


@dataclass
class Evidence:
    """All that was seen of one run.

    Attributes:
        before: The process after the first answers, before the crowd.
        after: The same once it was at rest again.
        samples: While the crowd was there.
        rested: Whether it came to rest.
        metrics: At rest.
        engine: Its own books, at rest.
        access: Lines of the access log, the first answers' among them.
        complaints: Lines of the log that should not be there.
        status: The exit status after SIGTERM.
    """

    crowd: Crowd
    words: Mapping[tuple[str, str], list[str]]
    before: Sample
    after: Sample
    samples: Sequence[Sample]
    rested: bool
    metrics: Mapping[str, float]
    engine: Mapping[str, Any]
    access: Sequence[Mapping[str, Any]] = ()
    complaints: Sequence[str] = ()
    status: int | None = None
    slope_limit: float = field(default=SLOPE_LIMIT)


def judge(evidence: Evidence) -> list[Check]:
    """Every check."""
    return [
        _survivors(evidence),
        _memory(evidence),
        *_left(evidence),
        *_books(evidence),
        _outcomes(evidence),
        _log(evidence),
    ]


def slope(samples: Sequence[Sample]) -> float:
    """KiB of memory for each 1,000 requests, by least squares over the second half of them."""
    last = samples[-1].ended
    half = [sample for sample in samples if sample.ended >= last / 2]
    mean_x = sum(sample.ended for sample in half) / len(half)
    mean_y = sum(sample.rss for sample in half) / len(half)
    spread = sum((sample.ended - mean_x) ** 2 for sample in half)
    if not spread:
        return 0.0
    together = sum((sample.ended - mean_x) * (sample.rss - mean_y) for sample in half)
    return 1000 * together / spread


def is_whole(client: Client, seen: Seen, words: Mapping[tuple[str, str], list[str]]) -> bool:
    """Whether one who stayed has its answer, to the byte."""
    if seen.status != 200 or not seen.complete:
        return False
    try:
        return client.kind.text(seen) == expected(client, words)
    except (ValueError, LookupError):
        return False


def _survivors(evidence: Evidence) -> Check:
    stayed = evidence.crowd.seen
    broken = [(c, s) for c, s in stayed if not is_whole(c, s, evidence.words)]
    detail = f"{len(stayed) - len(broken)} of {len(stayed)} have their answer, to the byte"
    if broken:
        client, seen = broken[0]
        got = seen.error or f"status {seen.status}, complete {seen.complete}, {bytes(seen.body)!r}"
        detail += f"; one {client.kind.name} of {client.tokens} tokens: {got[:300]}"
    return Check("survivors", bool(stayed) and not broken, detail)


def _memory(evidence: Evidence) -> Check:
    found, limit = slope(evidence.samples), evidence.slope_limit
    peak = max(sample.rss for sample in evidence.samples)
    detail = (
        f"{found:+.1f} KiB for each 1,000 requests in the second half (limit {limit:g}); "
        f"{evidence.before.rss / 1024:.1f} MiB before, {peak / 1024:.1f} at most, "
        f"{evidence.after.rss / 1024:.1f} after"
    )
    return Check("memory", found <= limit, detail)


def _left(evidence: Evidence) -> Iterator[Check]:
    before, after, engine = evidence.before, evidence.after, evidence.engine
    yield Check("descriptors", after.fds <= before.fds, f"{before.fds} before, {after.fds} after")
    detail = f"{before.threads} before, {after.threads} after"
    yield Check("threads", after.threads <= before.threads, detail)
    in_flight = sum_of(evidence.metrics, "streamkit_requests_in_flight")
    running, queued = engine["running"], engine["queued"]
    lost = engine["quarantined"] or engine["misbehaviours"] or engine["failure"]
    yield Check(
        "at rest",
        evidence.rested and not (in_flight or running or queued or lost),
        f"in flight {in_flight:g}, running {running}, queued {queued}; quarantined "
        f"{engine['quarantined']}, misbehaviours {engine['misbehaviours']}",
    )


def _books(evidence: Evidence) -> Iterator[Check]:
    metrics = evidence.metrics
    total = {
        name: sum_of(metrics, f"streamkit_{name}_total")
        for name in (
            "tokens_produced",
            "tokens_delivered",
            "tokens_undelivered",
            "engine_tokens",
            "requests_received",
            "requests_ended",
            "requests_refused",
            "ledger_violations",
        )
    }
    made = evidence.engine["tokens"]
    produced, delivered = total["tokens_produced"], total["tokens_delivered"]
    undelivered = total["tokens_undelivered"]
    logged = sum(line.get("produced") or 0 for line in evidence.access)
    yield Check(
        "tokens",
        produced == delivered + undelivered == made == total["engine_tokens"] == logged
        and not total["ledger_violations"],
        f"{produced:,.0f} = {delivered:,.0f} delivered + {undelivered:,.0f} undelivered; "
        f"{made:,} by the engine, {logged:,} in the access log",
    )
    ended, refused = total["requests_ended"], total["requests_refused"]
    received = total["requests_received"]
    by = Counter[str]()
    for key, value in metrics.items():
        if key.startswith("streamkit_requests_ended_total"):
            by[key.partition("('outcome', '")[2].partition("'")[0]] += int(value)
    yield Check(
        "requests",
        received == ended + refused and ended == sum(by[name] for name in _TERMINAL),
        f"{received:,.0f} = {ended:,.0f} ended + {refused:,.0f} refused; "
        + " + ".join(f"{by[name]:,} {name}" for name in sorted(_TERMINAL)),
    )


def _outcomes(evidence: Evidence) -> Check:
    asked = [line for line in evidence.access if line["method"] == "POST"]
    ids = Counter(line["id"] for line in asked)
    twice = [name for name, count in ids.items() if count > 1]
    received = sum_of(evidence.metrics, "streamkit_requests_received_total")
    detail = f"{len(asked):,} lines of the access log for {received:,.0f} requests"
    return Check(
        "one outcome each",
        not twice and len(asked) == received,
        detail + (f"; {twice[0]} has {ids[twice[0]]}" if twice else ""),
    )


def _log(evidence: Evidence) -> Check:
    said = evidence.complaints
    detail = f"exit status {evidence.status} after SIGTERM"
    return Check(
        "log", not said and evidence.status == 0, f"{detail}; {said[0]}" if said else detail
    )
