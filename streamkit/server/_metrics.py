"""What Prometheus reads: the ledger's and the engine's books, and how long cancels took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamkit import __version__
from streamkit._core import Phase
from streamkit.runner import Account, Runner, Served, Totals

from ._connections import Connections
from ._visit import Visit

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_SHORT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LONG: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Sample = tuple[tuple[str, ...], float]


class Sources:
    """The books, read once for a whole scrape."""

    __slots__ = ("blocked_for", "connections", "engine", "runner", "statistics", "totals", "visits")

    def __init__(
        self,
        runner: Runner,
        blocked_for: float,
        visits: Mapping[tuple[str, int], int],
        connections: Connections | None,
    ) -> None:
        self.connections = connections
        self.visits = visits
        self.runner = runner
        self.engine: Served = runner.served
        self.totals: Totals = runner.statistics()
        self.statistics = runner.served.statistics()
        self.blocked_for = blocked_for


@dataclass(frozen=True, slots=True)
class Family:
    """One metric that is read from the books when it is asked for."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    help: str
    read: Callable[[Sources], Iterable[Sample]]


def _one(read: Callable[[Sources], float]) -> Callable[[Sources], Iterable[Sample]]:
    return lambda sources: [((), read(sources))]


def _engine(name: str) -> Callable[[Sources], Iterable[Sample]]:
    """Nothing at all for an engine that cannot tell: 0 would be a lie."""
    return lambda sources: (
        [((), getattr(sources.statistics, name))] if sources.statistics is not None else []
    )


def _connections(read: Callable[[Connections], float]) -> Callable[[Sources], Iterable[Sample]]:
    """Nothing at all on another server than ours, which does not tell."""
    return lambda sources: (
        [((), read(sources.connections))] if sources.connections is not None else []
    )


def _tokens(name: str) -> Callable[[Sources], Iterable[Sample]]:
    """Of ended requests and of those that run, so that it grows as they do."""

    def read(sources: Sources) -> Iterable[Sample]:
        totals = sources.totals
        yield (), sum(getattr(sums, name) for sums in (*totals.ended.values(), totals.live))

    return read


def _lost(name: str) -> Callable[[Sources], Iterable[Sample]]:
    def read(sources: Sources) -> Iterable[Sample]:
        for ending, sums in sources.totals.ended.items():
            if ending.outcome is not Phase.FINISHED:
                yield (ending.reason or "", ending.phase or ""), getattr(sums, name)

    return read


def _info(sources: Sources) -> Iterable[Sample]:
    yield (__version__, sources.engine.name), 1


def _visits(sources: Sources) -> Iterable[Sample]:
    for (route, status), count in sources.visits.items():
        yield (route, str(status)), count


def _refused(sources: Sources) -> Iterable[Sample]:
    for why, count in sources.totals.refused.items():
        yield (why,), count


def _ended(sources: Sources) -> Iterable[Sample]:
    for (outcome, reason, phase), sums in sources.totals.ended.items():
        yield (outcome, reason or "", phase or ""), sums.requests


def _in_flight(sources: Sources) -> Iterable[Sample]:
    counts: dict[str, int] = {}
    for account in sources.runner.in_flight.running():
        counts[account.phase] = counts.get(account.phase, 0) + 1
    return [((phase,), count) for phase, count in counts.items()]


def _misbehaviours(sources: Sources) -> Iterable[Sample]:
    if sources.statistics is None:
        return []
    return [((kind,), count) for kind, count in sources.statistics.misbehaviours.items()]


_CUT: Final = ("reason", "phase")

FAMILIES: Final = (
    Family("streamkit_info", "gauge", ("version", "engine"), "Always 1.", _info),
    Family("streamkit_ready", "gauge", (), "1 while new requests are admitted.",
        _one(lambda s: s.runner.not_ready() is None)),
    Family("streamkit_http_requests", "counter", ("route", "status"),
        "Answers by route and status; 499 for a client that left.", _visits),
    Family("streamkit_requests_received", "counter", (), "Requests that arrived.",
        _one(lambda s: s.totals.received)),
    Family("streamkit_requests_refused", "counter", ("why",),
        "Requests that were never started: invalid, full or unavailable.",
        _refused),
    Family("streamkit_requests_ended", "counter", ("outcome", *_CUT),
        "Requests that ended: finished, cancelled or failed; why, and in which phase.", _ended),
    Family("streamkit_requests_in_flight", "gauge", ("phase",),
        "Requests that have not ended, by what they are doing.", _in_flight),
    Family("streamkit_requests_quarantined", "gauge", (),
        "Cancelled requests that the engine has not proved to have stopped.",
        _one(lambda s: s.totals.quarantined)),
    Family("streamkit_tokens_produced", "counter", (), "Tokens that the engine made.",
        _tokens("produced")),
    Family("streamkit_tokens_delivered", "counter", (),
        "Tokens handed to the server while their client was there.", _tokens("delivered")),
    Family("streamkit_tokens_undelivered", "counter", _CUT,
        "Tokens made for requests that were cut short, and not delivered.", _lost("undelivered")),
    Family("streamkit_tokens_wasted", "counter", _CUT,
        "Of those, tokens that the engine made after the cancel.", _lost("wasted")),
    Family("streamkit_tokens_saved", "counter", _CUT,
        "Tokens that were not made because their request was cancelled.", _lost("saved")),
    Family("streamkit_ledger_violations", "counter", (), "Times that books did not balance.",
        _one(lambda s: s.totals.violations)),
    Family("streamkit_loop_blocked_seconds", "counter", (),
        "Seconds for which the event loop was blocked, so that no cancel could be noticed.",
        _one(lambda s: s.blocked_for)),
    Family("streamkit_connections", "gauge", (), "Connections that are open.",
        _connections(lambda c: len(c.open))),
    Family("streamkit_connections_turned_away", "counter", (),
        "Connections that were closed because as many as may be (max_connections) were open.",
        _connections(lambda c: c.turned_away)),
    Family("streamkit_engine_slots", "gauge", (), "Sequences that the engine can run at once.",
        _engine("slots")),
    Family("streamkit_engine_running", "gauge", (), "Sequences in a slot.", _engine("running")),
    Family("streamkit_engine_queued", "gauge", (), "Sequences waiting for one.",
        _engine("queued")),
    Family("streamkit_engine_quarantined_slots", "gauge", (),
        "Slots lost to requests that the engine has not proved to have stopped.",
        _engine("quarantined")),
    Family("streamkit_engine_steps", "counter", (), "Steps, by the engine's own count.",
        _engine("steps")),
    Family("streamkit_engine_tokens", "counter", (), "Tokens, by the engine's own count.",
        _engine("tokens")),
    Family("streamkit_engine_misbehaviours", "counter", ("kind",),
        "Times that the engine broke its word about a cancel.", _misbehaviours),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timing:
    """One histogram: a time of each request, taken when its books are closed."""

    name: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...]
    read: Callable[[Account], float | None]


TIMINGS: Final = (
    Timing("streamkit_cancel_told_seconds", ("phase",),
        "From a cancel to the engine told.", _SHORT, lambda a: a.told_after),
    Timing("streamkit_cancel_proved_seconds", ("phase",),
        "From a cancel to the engine proved to have stopped.", _SHORT, lambda a: a.proved_after),
    Timing("streamkit_first_token_seconds", (),
        "From a request's arrival to its first token.", _LONG, lambda a: a.first_token_after),
    Timing("streamkit_queue_seconds", (),
        "That a request waited for a slot.", _LONG, lambda a: a.seconds.get(Phase.QUEUED)),
)  # fmt: skip


class Metrics:
    """The metrics of one server, in a registry of their own.

    Counters are read from the books when they are asked for, and cost a request nothing.

    Attributes:
        connections: Those of the process, where it counts them.
    """

    __slots__ = ("_timings", "_visits", "connections", "registry")

    def __init__(self, runner: Runner, blocked_for: Callable[[], float]) -> None:
        self.registry: CollectorRegistry = CollectorRegistry(auto_describe=False)
        self._visits: Counter[tuple[str, int]] = Counter()
        self.connections: Connections | None = None
        self.registry.register(_Books(partial(self._read, runner, blocked_for)))
        self._timings = [
            (
                timing,
                Histogram(
                    timing.name,
                    timing.help,
                    timing.labels,
                    buckets=timing.buckets,
                    registry=self.registry,
                ),
            )
            for timing in TIMINGS
        ]

    def _read(self, runner: Runner, blocked_for: Callable[[], float]) -> Sources:
        return Sources(runner, blocked_for(), self._visits, self.connections)

    def visited(self, visit: Visit) -> None:
        """An exchange is over, and the books of its request are closed."""
        self._visits[visit.route, visit.status] += 1
        if (account := visit.account) is None:
            return
        for timing, histogram in self._timings:
            if (seconds := timing.read(account)) is not None:
                series = histogram.labels(account.cancelled_in) if timing.labels else histogram
                series.observe(seconds)

    def expose(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)

    def __repr__(self) -> str:
        return f"<Metrics {len(FAMILIES)} families, {len(TIMINGS)} timings>"


class _Books(Collector):
    """Reads the books of this moment."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], Sources]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        sources = self._read()
        for family in FAMILIES:
            make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = make(family.name, family.help, labels=family.labels)
            for labels, value in family.read(sources):
                metric.add_metric(labels, value)
            yield metric
