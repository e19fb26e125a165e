"""What holds at every moment, and what holds at the end, whatever was done to a server."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

from streamkit._core import CancelSource, Phase, held
from streamkit.asgi._owner import Owner
from streamkit.engines._run import EngineRun
from streamkit.runner import Account
from streamkit.runner._book import Book
from streamkit.runner._case import Case
from streamkit.streams import CancellableStream

from .scene import DEADLINE, STEP, Guest, Scene

ENDED = {Phase.FINISHED, Phase.CANCELLED, Phase.FAILED}
# One of each for a request, and none when it is over.
PASSING = (Book, CancelSource, CancellableStream, Case, EngineRun, Owner)
BOUND = 1.0  # seconds: an engine that takes longer than this to obey is reported
DUST = 1e-6


def check_always(scene: Scene) -> None:
    """Between any two turns of the loop."""
    totals, runner = scene.runner.statistics(), scene.runner
    assert not scene.witness.errors, scene.witness.errors
    assert totals.violations == 0, totals
    assert totals.running == len(runner.in_flight)
    assert totals.started == totals.finished + totals.cancelled + totals.failed + totals.running
    assert runner.admission.admitted == sum(call.admitted for call in runner.in_flight)
    assert scene.engine.statistics().running <= scene.engine.statistics().slots
    assert all(times == 1 for times in Counter(scene.witness.visits).values())
    given_up = 0
    for name, guest in scene.guests.items():
        account = runner.find(name)
        if account is None:  # refused, or its head has not been looked at
            assert guest.ended is None, f"{name} was forgotten"
            continue
        given_up += account.given_up
        check_contained(scene, name, account)
        check_aborts(scene, name, account)
        if account.phase in {*ENDED, Phase.QUARANTINED}:
            check_ended(scene, name, guest, account)
    assert totals.quarantined == given_up


def check_aborts(scene: Scene, name: str, account: Account) -> None:
    """The engine is told once; again only by the ladder, which says so."""
    record = scene.engine.log.request(name)
    if record is None or "report" in account.steps:  # given up: it is reminded, ever more rarely
        return
    in_ladder = account.phase not in ENDED and account.detected_after is not None
    waits = in_ladder and account.age - account.detected_after >= BOUND - DUST
    assert record.aborts <= 1 + ("again" in account.steps or waits), (name, account, record)
    if account.phase is Phase.FINISHED:
        assert record.aborts == 0, (name, record)


def check_contained(scene: Scene, name: str, account: Account) -> None:
    """A slot that a liar keeps is known to be no slot for others."""
    record = scene.engine.log.request(name)
    if account.given_up and record is not None and record.ended_at is None and record.steps:
        assert scene.engine.statistics().quarantined > 0, (account, record)


def check_ended(scene: Scene, name: str, guest: Guest, account: Account) -> None:
    """Its end is written once, for a cause that there was, and what is claimed is so."""
    before = guest.ended or account
    guest.ended = before
    same = before.phase is account.phase or before.phase is Phase.QUARANTINED
    assert same, f"{name} ended twice: {before}, then {account}"
    assert (before.reason, before.age) == (account.reason, account.age), (before, account)
    assert account.produced == account.delivered + account.undelivered, account
    assert (account.phase is Phase.FINISHED) == (account.reason is None), account
    assert account.reason is None or account.reason.value in causes(scene, guest, account), account
    if account.given_up:
        assert account.misbehaviour is not None, account
        return
    record = scene.engine.log.request(name)
    if record is None:
        assert account.produced == 0, account
        return
    assert record.ended_at is not None, f"{name}: closed, but the engine still holds it: {account}"
    assert account.produced == record.tokens, (account, record)
    if account.proved_after is not None and account.detected_after is not None:
        proved_at = account.arrived_at + account.detected_after + account.proved_after
        assert record.ended_at <= proved_at + DUST, f"{name}: proved before it was so: {account}"
    if record.told_at is not None and record.ended_at - record.told_at > BOUND + 2 * STEP:
        assert account.misbehaviour is not None, f"{name}: a lie went unseen: {account}"


def causes(scene: Scene, guest: Guest, account: Account) -> set[str]:
    """What may have cut it short."""
    allowed = set(guest.causes)
    if "requested" in allowed:
        return {"requested"}
    if account.detected_after is not None and account.detected_after >= DEADLINE - DUST:
        allowed.add("deadline")
    if scene.engine.failure is not None:
        allowed.add("engine_failed")
    return allowed


def check_honest(scene: Scene) -> None:
    """An engine that kept its word is accused of nothing."""
    assert scene.engine.statistics().misbehaviours == {}
    assert scene.runner.statistics().quarantined == 0


def check_answers(scene: Scene) -> None:
    """What the clients hold in their hands, once it is over."""
    texts: dict[tuple[str, int], str] = {}
    for name, guest in scene.guests.items():
        exchange, account = guest.exchange, scene.runner.find(name)
        heads = [each for each in exchange.sent if each.message["type"] == "http.response.start"]
        assert len(heads) <= 1, exchange
        if guest.form == "events" and exchange.status == 200:
            last = [each.event for each in exchange.events if each.event != "message"]
            assert len(last) <= 1, (exchange, last)
            if account.phase is Phase.FINISHED and exchange.completed:
                assert last == ["done"], (exchange, account)
        assert exchange.error is None, exchange
        assert exchange.concurrent_receives <= 1, exchange
        if account is None:
            assert exchange.status in {400, 429, 499, 503, 504, None}, exchange
        elif account.phase is Phase.FINISHED:
            assert account.delivered == guest.tokens, account
            assert exchange.completed or exchange.left_at is not None, exchange
        if guest.form == "raw" and exchange.status == 200:
            check_text(guest, account, texts)
    assert set(scene.guests) <= set(scene.witness.visits), "an exchange without its access line"


def check_text(guest: Guest, account: Account, texts: dict[tuple[str, int], str]) -> None:
    """The same question has the same answer, whoever else is served: one begins as the other."""
    text = guest.exchange.text
    other = texts.setdefault((guest.prompt, guest.tokens), text)
    assert text.startswith(other) or other.startswith(text), (text, other)
    handed = b"".join(sent.message.get("body", b"") for sent in guest.exchange.sent)
    assert account.delivered <= len(handed.split()), account


async def check_idle(scene: Scene) -> None:
    """Nobody is there: the engine has nothing to do, and nothing else is left."""
    books, runner = scene.engine.statistics(), scene.runner
    totals = runner.statistics()
    assert (books.running, books.queued, books.quarantined) == (0, 0, 0)
    assert (len(runner.in_flight), runner.admission.admitted, totals.quarantined) == (0, 0, 0)
    assert sum(sums.produced for sums in totals.ended.values()) == books.tokens
    assert sum(sums.requests for sums in totals.ended.values()) == totals.started
    assert held() == []
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left: {left}"
    timers = [timer for timer in scene.loop._scheduled if not timer.cancelled()]
    assert not timers, f"timers are left: {timers}"


def check_forgotten() -> None:
    """No object of a request is still known to anybody, as a forgotten listener would be."""
    gc.collect()
    left = [each for each in gc.get_objects() if isinstance(each, PASSING)]
    assert not left, f"somebody still knows {left}"
