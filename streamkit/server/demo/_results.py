"""What a demo found out, as frozen records, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from streamkit._core import Phase, Reason

from ._drive import Driven, Work
from ._plan import EXPECTED, STEP_MS, Aim, Leave, Plan, Scene, Visit
from ._servers import WRITE_STALL, Footprint
from ._traffic import Stay

_TITLES: Final[Mapping[Aim, str]] = {
    Aim.WHOLE: ", not streaming",
    Aim.SLOW: f", in a step of {STEP_MS[Scene.SLOW]} ms",
    Aim.STALLED: ", stalled reader",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One request that streamkit cut short, in the words of its ledger.

    The three times are seconds from the client's system call to the server's instant. One that
    stayed and stopped reading made no call: its times count from the begin of the blocked write.

    Attributes:
        id: The request's id.
        row: Which row of the table it belongs to.
        leave: How its client left.
        reason: Why it was cut short.
        detected: Until the server knew.
        told: Until the engine had been told to abort.
        proved: Until the engine was proved to have stopped.
        proof: What proves it.
        tokens: Tokens that the engine made for it in all.
        misbehaviour: How the engine broke its word about the cancel, or None.
    """

    id: str
    row: str
    leave: Leave
    reason: str
    detected: float | None
    told: float | None
    proved: float | None
    proof: str | None
    tokens: int
    misbehaviour: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The books of one server: the ledger's, and the engine's own.

    Attributes:
        scene: Which engine it served.
        started: Requests that it started.
        finished: Of those, answered whole.
        cancelled: Cut short.
        failed: Broken.
        running: Not ended.
        produced: Tokens made, as the ledger has it.
        delivered: Of those, handed over while the client was there.
        undelivered: Of those, not.
        engine_tokens: Tokens made, as the engine's own step log has it.
        accounts_tokens: The same, added up here over every request by its id.
        violations: Times that the ledger itself found books that do not balance.
        quarantined: Requests whose stop was never proved.
    """

    scene: Scene
    started: int
    finished: int
    cancelled: int
    failed: int
    running: int
    produced: int
    delivered: int
    undelivered: int
    engine_tokens: int
    accounts_tokens: int
    violations: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """One server when all clients had gone, seen from outside.

    Attributes:
        scene: Which engine it served.
        in_flight: Requests that it lists as running.
        running: Sequences in the engine's slots.
        queued: Sequences that wait for one.
        left: What its process holds beyond what it held before; None where nothing can tell.
        canary: Seconds that a request for one token took, or None if it was not answered.
        status: Its exit status after SIGTERM.
    """

    scene: Scene
    in_flight: int
    running: int
    queued: int
    left: Footprint | None
    canary: float | None
    status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the same traffic cost and gave on one kind of server.

    Attributes:
        name: Which server.
        work: What each of its engines did, by its own log.
        by_request: Tokens made, by request.
        finish: Seconds from arrival to the whole answer, of the chat clients that stayed and came
            when all slots were taken: only they can gain from what others leave (median).
        speed: Tokens per second that such a client got over that time (median).
        idle_after: Seconds from the first client to engines with nothing to do, or None if they
            were not idle in time.
        errors: What went wrong with clients.
    """

    name: str
    work: Mapping[Scene, Work]
    by_request: Mapping[str, int]
    finish: float | None
    speed: float | None
    idle_after: float | None
    errors: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Tokens made."""
        return sum(work.tokens for work in self.work.values())

    @property
    def engine_seconds(self) -> float:
        """How long its engines were at work, all of them together."""
        return sum(work.steps * STEP_MS[scene] / 1000 for scene, work in self.work.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything.

    Attributes:
        clients: How many there were.
        seed: What decided their plans.
        seconds: How long it all took.
        plan: Requests by what their client meant to do.
        cuts: Those that were cut short.
        streamkit: The run on ``streamkit serve``.
        plain: The runs on plain apps.
        totals: The books, by server.
        after: The servers when all was over.
    """

    clients: int
    seed: int
    seconds: float
    plan: Mapping[str, int]
    cuts: Sequence[Cut]
    streamkit: Run
    plain: Sequence[Run]
    totals: Sequence[Totals]
    after: Sequence[After]


def planned(plan: Plan) -> dict[str, int]:
    """How many clients mean to do what."""
    return {aim: len(plan.of(aim)) for aim in Aim}


def cut_of(stay: Stay, account: Mapping[str, Any] | None) -> Cut | None:
    """What the ledger says of a client that left; None when its request was not cut short."""
    if account is None or stay.visit.leave is None or account["cancelled_in"] is None:
        return None
    if stay.visit.leave is Leave.STOP_READING:
        detected = account["seconds"].get(Phase.SENDING)
    elif stay.left_at is not None and _same_clock(stay, account):
        detected = account["arrived_at"] + account["detected_after"] - stay.left_at
    else:
        detected = None
    return Cut(
        id=account["id"],
        row=_row(stay.visit, account),
        leave=stay.visit.leave,
        reason=account["reason"],
        detected=detected,
        told=_plus(detected, account["told_after"]),
        proved=_plus(detected, account["proved_after"]),
        proof=account["proof"],
        tokens=account["tokens"],
        misbehaviour=account["misbehaviour"],
    )


def run_of(name: str, driven: Driven, made: Mapping[str, int]) -> Run:
    """Add up one run; ``made`` are the tokens of each request."""
    stayed = [stay for stay in driven.stays if stay.whole and not stay.visit.first]
    return Run(
        name=name,
        work=driven.work,
        by_request=dict(made),
        finish=_median([stay.seconds for stay in stayed]),
        speed=_median([made.get(stay.visit.id, 0) / stay.seconds for stay in stayed]),
        idle_after=driven.idle_after,
        errors=tuple(
            f"{stay.visit.id} ({stay.visit.aim}): {stay.error}"
            for stay in driven.stays
            if stay.error
        ),
    )


def totals_of(
    scene: Scene, metrics: Mapping[str, float], engine_tokens: int, accounts_tokens: int
) -> Totals:
    """Read a server's books out of its metrics."""

    def count(name: str) -> int:
        return int(metrics[f"streamkit_{name}"])

    def ended(outcome: Phase) -> int:
        return int(metrics.get(f"streamkit_requests_ended{{{outcome}}}", 0))

    return Totals(
        scene=scene,
        started=count("requests_received") - count("requests_refused"),
        finished=ended(Phase.FINISHED),
        cancelled=ended(Phase.CANCELLED),
        failed=ended(Phase.FAILED),
        running=count("requests_in_flight"),
        produced=count("tokens_produced"),
        delivered=count("tokens_delivered"),
        undelivered=count("tokens_undelivered"),
        engine_tokens=engine_tokens,
        accounts_tokens=accounts_tokens,
        violations=count("ledger_violations"),
        quarantined=count("requests_quarantined"),
    )


def problems(results: Results) -> list[str]:
    """What is wrong: empty when the books balance, nothing leaked, and every phase was hit."""
    return [
        *_wrong_runs(results),
        *_wrong_cuts(results),
        *(problem for totals in results.totals for problem in _wrong_books(totals)),
        *(problem for after in results.after for problem in _leaks(after)),
    ]


def _wrong_runs(results: Results) -> Iterator[str]:
    for run in (results.streamkit, *results.plain):
        yield from (f"{run.name}: client {error}" for error in run.errors)
        if run.idle_after is None:
            yield f"{run.name}: its engines were still busy when the demo gave up waiting"


def _wrong_cuts(results: Results) -> Iterator[str]:
    rows = {cut.row for cut in results.cuts}
    for aim, phase in EXPECTED.items():
        if results.plan.get(aim) and _title(aim, phase) not in rows:
            yield f"no client was met by its cancel in the phase it aimed at: {aim}"
    cancelled = sum(totals.cancelled for totals in results.totals)
    if cancelled != len(results.cuts):
        yield f"{len(results.cuts)} clients were cut short, the ledgers say {cancelled}"
    for cut in results.cuts:
        stalled = cut.leave is Leave.STOP_READING
        expected = Reason.WRITE_STALLED if stalled else Reason.CLIENT_DISCONNECT
        if cut.reason != expected:
            yield f"{cut.id} left by {cut.leave}, but was cut short for {cut.reason}"
        if cut.proof is None:
            yield f"{cut.id}: the engine was not proved to have stopped"
        if cut.misbehaviour is not None:
            yield f"{cut.id}: the engine broke its word about the cancel: {cut.misbehaviour}"


def _wrong_books(totals: Totals) -> Iterator[str]:
    name = totals.scene
    ended = totals.finished + totals.cancelled + totals.failed
    if totals.started != ended + totals.running:
        yield (
            f"{name}: {totals.started} requests started, but {totals.finished} finished, "
            f"{totals.cancelled} were cancelled, {totals.failed} failed and {totals.running} run"
        )
    if totals.produced != totals.delivered + totals.undelivered:
        yield (
            f"{name}: {totals.produced} tokens were produced, but {totals.delivered} delivered and "
            f"{totals.undelivered} not"
        )
    for what, tokens in (
        ("the engine's own log", totals.engine_tokens),
        ("the requests one by one", totals.accounts_tokens),
    ):
        if tokens != totals.produced:
            yield f"{name}: {what} says {tokens} tokens, the ledger {totals.produced}"
    if totals.failed:
        yield f"{name}: {totals.failed} requests failed"
    if totals.violations:
        yield f"{name}: the ledger found books that do not balance {totals.violations} times"
    if totals.quarantined:
        yield f"{name}: {totals.quarantined} requests were never proved to have stopped"


def _leaks(after: After) -> Iterator[str]:
    held = {
        "requests in flight": after.in_flight,
        "slots": after.running,
        "queue entries": after.queued,
        "threads": after.left.threads if after.left else 0,
        "sockets": after.left.sockets if after.left else 0,
        "files": after.left.files if after.left else 0,
    }
    yield from (f"{after.scene}: {count} {what} leaked" for what, count in held.items() if count)
    if after.canary is None:
        yield f"{after.scene}: a new request was not served after the cancels"
    if after.status != 0:
        yield f"{after.scene}: the server ended with status {after.status} after SIGTERM"


def _row(visit: Visit, account: Mapping[str, Any]) -> str:
    """What the ledger says, and what the client did; never what it had in mind."""
    phase = Phase(account["cancelled_in"])
    if visit.leave is Leave.STOP_READING:
        return f"{phase}, reads no more (limit {WRITE_STALL:g} s)"
    return _title(visit.aim, phase)


def _title(aim: Aim, phase: Phase) -> str:
    return f"{phase}{_TITLES.get(aim, '')}"


def _same_clock(stay: Stay, account: Mapping[str, Any]) -> bool:
    """Whether the server's clock is ours: then the request arrived while its client was there."""
    return stay.began_at <= account["arrived_at"] <= stay.ended_at


def _plus(base: float | None, seconds: float | None) -> float | None:
    return None if base is None or seconds is None else base + seconds


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
