"""Whatever clients, operators and the engine do in whatever order, the books are true."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from streamkit._core import Phase
from streamkit.engines import FakeEngine
from streamkit.runner import Account
from streamkit.server.app import Application, create_app

from . import claims
from .claims import DUST, ENDED
from .machine import EXAMPLES, PLANS, SERVERS, Plan, Served, guests, run_until_seen
from .scene import STEP, Guest, Scene

BOUND = 1.0  # seconds: an engine that takes longer than this to obey is reported
FORMS = {
    "json": ("/generate", "application/json"),
    "raw": ("/generate", "*/*"),
    "events": ("/generate", "text/event-stream"),
    "chat": ("/v1/chat/completions", "text/event-stream"),
}

# What the engine does with an abort, and what the runs must have come across, or they show nothing.
REASONS = {
    *("None", "client_disconnect", "write_stalled", "deadline", "drain", "requested"),
    # What nothing else than this could have cut short.
    *("client_disconnect alone", "write_stalled alone", "the server is shutting down alone"),
}
ENGINES: dict[str | None, set[str]] = {
    None: REASONS,
    "ignore_abort": {"ignored"},
    "lose_abort:2": {"lost"},
    "ack_and_run_on": {"runs_on"},
    "answer_late:1.5": {"late"},
    "never_answer": {"silent"},
    "crash": {"crashed"},
    "crash:30": {"engine_failed"},
    "block:0.001": {"requested"},  # so short a block is no broken word
}
KEPT = {None, "block:0.001"}


class EngineScene(Scene):
    # An engine that lies or dies is an error in the log, and so are the requests that it broke.
    TOLD_ELSEWHERE = frozenset({"streamkit.engines", "streamkit.server"})

    def __init__(self, engine: dict[str, Any], *, server: str) -> None:
        self.engine = FakeEngine(step_ms=STEP * 1000, **engine)
        super().__init__(server=server)

    def make_app(self) -> Application:
        return create_app(self.settings(), engine=self.engine)

    @property
    def broken(self) -> bool:
        return self.engine.failure is not None

    def arrive(self, form: str, prompt: str, tokens: int, choices: int, **client: Any) -> str:
        path, accept = FORMS[form]
        body: dict[str, Any] = {"max_tokens": tokens, "n": choices, "stream": form != "json"}
        if form == "chat":
            body |= {"model": "fake", "messages": [{"role": "user", "content": prompt}]}
        else:
            body["prompt"] = prompt
        exchange = self.ask(path, accept, body, **client)
        return self.come(Guest(exchange, form, (prompt, tokens * choices), tokens * choices))


class ServedEngine(Served):
    """The whole of a served engine."""

    lie: ClassVar[str | None]
    forms = tuple(FORMS)
    scene: EngineScene

    @initialize(
        kill=st.booleans(),
        slots=st.integers(1, 3),
        speculative=st.integers(1, 2),
        server=st.sampled_from(SERVERS),
    )
    def open(self, server: str, **engine: Any) -> None:
        self.begin()
        self.scene = EngineScene({"lie": self.lie, **engine}, server=server)

    @rule(
        target=guests,
        form=st.sampled_from(["json", "raw", "raw", "events", "chat"]),
        words=st.sampled_from([1, 3, 1200]),
        tokens=st.sampled_from([1, 3, 10, 300, 300]),
        choices=st.integers(1, 3),
        plan=st.sampled_from(PLANS),
        turns=st.sampled_from([0, 0, 1, 2, 3, 5, 8, 12]),
    )
    def arrive(
        self,
        form: str,
        words: int,
        tokens: int,
        choices: int,
        plan: Plan,
        turns: int,
    ) -> str:
        n = 1 if form in {"raw", "events"} else choices  # plain text cannot tell them apart
        client, cause = plan
        names: list[str] = []

        async def act() -> None:
            names.append(self.scene.arrive(form, "w " * words, tokens, n, **client))
            await self.arrived(names[0], cause, turns)

        self.scene.run(act)
        return names[0]

    def arrive_for_long(self, form: str, plan: Plan, turns: int) -> str:
        return self.arrive(form, 3, 300, 1, plan, turns)

    def check_always(self) -> None:
        for name in self.scene.guests:
            if (account := self.scene.runner.find(name)) is not None:
                check_contained(self.scene, name, account)
                check_aborts(self.scene, name, account)
                if claims.is_over(account) and not account.given_up:
                    check_ended(self.scene, name, account)

    def check_answers(self) -> None:
        texts: dict[Any, str] = {}
        for guest in self.scene.guests.values():
            if guest.form == "raw" and guest.exchange.status == 200:
                check_text(guest, texts)

    async def check_idle(self) -> None:
        if self.lie in KEPT:
            claims.check_honest(self.scene)


def check_aborts(scene: EngineScene, name: str, account: Account) -> None:
    """The engine is told once; again only by the ladder, which says so."""
    record = scene.engine.log.request(name)
    if record is None or "report" in account.steps:  # given up: it is reminded, ever more rarely
        return
    in_ladder = account.phase not in ENDED and account.detected_after is not None
    waits = in_ladder and account.age - account.detected_after >= BOUND - DUST
    assert record.aborts <= 1 + ("again" in account.steps or waits), (name, account, record)
    if account.phase is Phase.FINISHED:
        assert record.aborts == 0, (name, record)


def check_contained(scene: EngineScene, name: str, account: Account) -> None:
    """A slot that a liar keeps is known to be no slot for others."""
    record = scene.engine.log.request(name)
    if account.given_up and record is not None and record.ended_at is None and record.steps:
        assert scene.engine.statistics().quarantined > 0, (account, record)


def check_ended(scene: EngineScene, name: str, account: Account) -> None:
    """What is claimed of its end is so."""
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


def check_text(guest: Guest, texts: dict[Any, str]) -> None:
    """The same question has the same answer, whoever else is served: one begins as the other."""
    text = guest.exchange.text
    other = texts.setdefault(guest.asks, text)
    assert text.startswith(other) or other.startswith(text), (text, other)


@pytest.mark.blocks_the_loop  # one of the lies
@pytest.mark.timeout(0 if EXAMPLES else 120)  # three workers on two cores are slow
@pytest.mark.parametrize("lie", ENGINES)
def test_each_request_ends_once_is_aborted_once_and_the_books_balance(lie: str | None) -> None:
    class Liar(ServedEngine):
        seen: ClassVar[set[str]] = set()

    Liar.lie = lie

    run_until_seen(Liar, ENGINES[lie], 40 if lie is None else 16)
