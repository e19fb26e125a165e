"""What holds at every moment, and what holds at the end, whatever was done to a server."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter

import pytest

from streamkit._core import CancelSource, Phase, held
from streamkit.asgi._owner import Owner
from streamkit.engines._run import EngineRun
from streamkit.runner import Account
from streamkit.runner._book import Book
from streamkit.runner._case import Case
from streamkit.streams import CancellableStream

from .scene import DEADLINE, Guest, Scene

ENDED = {Phase.FINISHED, Phase.CANCELLED, Phase.FAILED}
# One of each for a request, and none when it is over.
PASSING = (Book, CancelSource, CancellableStream, Case, EngineRun, Owner)
DUST = 1e-6
MOMENTS = 50  # that a thread may take to end, of ten real milliseconds each


def check_always(scene: Scene) -> None:
    """Between any two turns of the loop."""
    totals, runner = scene.runner.statistics(), scene.runner
    books = runner.served.statistics()
    assert not scene.witness.errors, scene.witness.errors
    assert totals.violations == 0, totals
    assert totals.running == len(runner.in_flight)
    assert totals.started == totals.finished + totals.cancelled + totals.failed + totals.running
    assert runner.admission.admitted == sum(call.admitted for call in runner.in_flight)
    assert books.running <= books.slots
    assert all(times == 1 for times in Counter(scene.witness.visits).values())
    given_up = 0
    for name, guest in scene.guests.items():
        account = runner.find(name)
        if account is None:  # refused, or its head has not been looked at
            assert guest.ended is None, f"{name} was forgotten"
            continue
        given_up += account.given_up
        if is_over(account):
            check_ended(scene, name, guest, account)
    assert totals.quarantined == given_up


def is_over(account: Account) -> bool:
    return account.phase in {*ENDED, Phase.QUARANTINED}


def check_ended(scene: Scene, name: str, guest: Guest, account: Account) -> None:
    """Its end is written once, for a cause that there was."""
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


def causes(scene: Scene, guest: Guest, account: Account) -> set[str]:
    """What may have cut it short."""
    allowed = set(guest.causes)
    if "requested" in allowed:
        return {"requested"}
    if account.detected_after is not None and account.detected_after >= DEADLINE - DUST:
        allowed.add("deadline")
    if scene.broken:
        allowed.add("engine_failed")
    return allowed


def check_honest(scene: Scene) -> None:
    """What kept its word is accused of nothing."""
    assert scene.runner.served.statistics().misbehaviours == {}
    assert scene.runner.statistics().quarantined == 0


def check_answers(scene: Scene) -> None:
    """What the clients hold in their hands, once it is over."""
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
            handed = b"".join(sent.message.get("body", b"") for sent in exchange.sent)
            assert account.delivered <= len(handed.split()), account
    assert set(scene.guests) <= set(scene.witness.visits), "an exchange without its access line"


async def check_idle(scene: Scene) -> None:
    """Nobody is there: what is served has nothing to do, and nothing else is left."""
    books, runner = scene.runner.served.statistics(), scene.runner
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
    for _ in range(MOMENTS):
        gc.collect()
        left = [repr(each) for each in gc.get_objects() if isinstance(each, PASSING)]
        if not left:
            return
        threading.Event().wait(0.01)  # one that has said that it is done still has to return
    pytest.fail(f"somebody still knows {left}")
