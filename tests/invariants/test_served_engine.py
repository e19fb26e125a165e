"""Whatever clients, operators and the engine do in whatever order, the books are true.

Hypothesis draws the orders, always the same ones; a failing one is printed as a test to run.
More of them, and new ones: ``INVARIANTS=1000 make test ARGS=tests/invariants``.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import anyio
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from . import claims
from .scene import FORMS, STEP, Scene

ROUNDS = 8  # at most, until what must be come across has been: mostly one
EXAMPLES = int(os.environ.get("INVARIANTS", "0"))
RUNS = settings(
    derandomize=not EXAMPLES,
    stateful_step_count=20,
    database=None,
    deadline=None,
    print_blob=True,
    # To make a failing run short takes minutes; to make it again takes its printed lines.
    phases=[Phase.generate, *([Phase.shrink] if EXAMPLES > 1000 else [])],
    suppress_health_check=list(HealthCheck),
)

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
SERVERS = ["uvicorn", "hypercorn", "granian", "standard"]
# What clients have planned from the start, and the reason that this may give.
Plan = tuple[dict[str, Any], str | None]
PLANS: list[Plan] = [
    *[({}, None)] * 4,
    ({"leaves_before_body_ends": True}, "client_disconnect"),
    ({"leaves_after_chunks": 2}, "client_disconnect"),
    ({"leaves_after_seconds": 2.5 * STEP}, "client_disconnect"),
    ({"stops_reading_after_chunks": 1}, "write_stalled"),
]
guests = Bundle("guests")


class ServedEngine(RuleBasedStateMachine):
    """The whole of a served engine, in memory, on virtual time."""

    lie: ClassVar[str | None]
    seen: ClassVar[set[str]]  # reasons, their details and broken words, of all runs
    scene: Scene

    @initialize(
        kill=st.booleans(),
        slots=st.integers(1, 3),
        speculative=st.integers(1, 2),
        server=st.sampled_from(SERVERS),
    )
    def open(self, server: str, **engine: Any) -> None:
        gc.collect()
        gc.freeze()
        self.threads = set(threading.enumerate())
        self.scene = Scene({"lie": self.lie, **engine}, server=server)

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
            names.append(await self.scene.arrive(form, "w " * words, tokens, n, **client))
            if cause is not None:
                self.scene.may_end(names[0], cause)
            if self.scene.drains:
                self.scene.may_end(names[0], "drain")
            await self.scene.turns(turns)

        self.scene.run(act)
        return names[0]

    @rule(
        target=guests,
        form=st.sampled_from(list(FORMS)),
        plan=st.sampled_from([PLANS[0], PLANS[-1]]),
        turns=st.integers(0, 12),
    )
    def arrive_to_stay(self, form: str, plan: Plan, turns: int) -> str:
        """Whoever has such an answer is cut short by something."""
        return self.arrive(form, 3, 300, 1, plan, turns)

    @rule(name=guests, turns=st.integers(0, 4))
    def leave(self, name: str, turns: int) -> None:
        async def act() -> None:
            self.scene.may_end(name, "client_disconnect")
            self.scene.guests[name].exchange.leave()
            await self.scene.turns(turns)

        self.scene.run(act)

    @rule(name=guests)
    def stop_reading(self, name: str) -> None:
        async def act() -> None:
            self.scene.may_end(name, "write_stalled")
            self.scene.guests[name].exchange.stop_reading()

        self.scene.run(act)

    @rule(name=guests)
    def resume_reading(self, name: str) -> None:
        async def act() -> None:
            self.scene.guests[name].exchange.resume_reading()

        self.scene.run(act)

    @rule(name=guests)
    def cancel_by_api(self, name: str) -> None:
        self.scene.run(lambda: self.scene.cancel_by_api(name))

    @rule(name=guests)
    def server_cancels(self, name: str) -> None:
        async def act() -> None:
            self.scene.may_end(name, "drain")
            self.scene.guests[name].exchange.cancel()

        self.scene.run(act)

    @rule(count=st.integers(1, 10))
    def turns(self, count: int) -> None:
        self.scene.run(lambda: self.scene.turns(count))

    @rule(steps=st.sampled_from([0.5, 1, 1, 2, 3.5, 10, 30, 150]))
    def time_passes(self, steps: float) -> None:
        self.scene.run(lambda: anyio.sleep(steps * STEP))

    @rule(name=guests)
    def one_ends(self, name: str) -> None:
        """Or does not: it may wait for a reader, or be cut short by its deadline."""

        async def act() -> None:
            with anyio.move_on_after(1.0):
                await self.scene.guests[name].exchange.wait_ended()

        self.scene.run(act)

    @rule(name=guests, grace=st.sampled_from([0, 0, 0.1, 2.0]))
    def drain(self, name: str, grace: float) -> None:
        """Only when somebody has come (``name``), for nobody is served afterwards."""
        self.scene.run(lambda: self.scene.drain(grace))

    @invariant()
    def holds(self) -> None:
        claims.check_always(self.scene)

    def teardown(self) -> None:
        scene = self.scene
        try:
            scene.run(scene.come_to_rest)
            claims.check_always(scene)
            claims.check_answers(scene)
            scene.run(lambda: claims.check_idle(scene))
            if self.lie in KEPT:
                claims.check_honest(scene)
            self.seen.update(str(ending.reason) for ending in scene.runner.statistics().ended)
            self.seen.update(scene.engine.statistics().misbehaviours)
            self.seen.update(self._told_apart())
            scene.guests.clear()
            scene.drains.clear()
            if scene.engine.failure is None:  # its traceback holds who was served last
                claims.check_forgotten()
            assert set(threading.enumerate()) <= self.threads
        finally:
            scene.close()
            gc.unfreeze()

    def _told_apart(self) -> Iterator[str]:
        for name, guest in self.scene.guests.items():
            account = self.scene.runner.find(name)
            if account is not None and guest.causes == {account.reason}:
                yield f"{account.detail if account.reason == 'drain' else account.reason} alone"


@pytest.mark.blocks_the_loop  # one of the lies
@pytest.mark.timeout(0 if EXAMPLES else 120)  # three workers on two cores are slow
@pytest.mark.parametrize("lie", ENGINES)
def test_each_request_ends_once_is_aborted_once_and_the_books_balance(lie: str | None) -> None:
    class Liar(ServedEngine):
        seen: ClassVar[set[str]] = set()

    Liar.lie = lie
    runs = settings(RUNS, max_examples=EXAMPLES or (40 if lie is None else 16))

    for number in range(ROUNDS):
        run_state_machine_as_test(Liar if EXAMPLES else seed(number)(Liar), settings=runs)
        if not (missed := ENGINES[lie] - Liar.seen):
            return
    pytest.fail(f"no run came across {missed}")
