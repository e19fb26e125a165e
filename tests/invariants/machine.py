"""What clients, operators and the server do to requests, whatever serves them.

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
    invariant,
    rule,
    run_state_machine_as_test,
)

from . import claims
from .scene import STEP, Scene

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


class Served(RuleBasedStateMachine):
    """The whole of a server, in memory, on virtual time; how guests arrive is left to others."""

    seen: ClassVar[set[str]]  # reasons, their details and broken words, of all runs
    forms: ClassVar[tuple[str, ...]]  # in which it can be asked
    scene: Scene

    def begin(self) -> None:
        gc.collect()
        gc.freeze()  # for good: to look through all that a worker has loaded takes half a second
        self.threads = set(threading.enumerate())

    @rule(
        target=guests,
        form=st.runner().flatmap(lambda served: st.sampled_from(served.forms)),
        plan=st.sampled_from([PLANS[0], PLANS[-1]]),
        turns=st.integers(0, 12),
    )
    def arrive_to_stay(self, form: str, plan: Plan, turns: int) -> str:
        """Whoever has such an answer is cut short by something."""
        return self.arrive_for_long(form, plan, turns)

    def arrive_for_long(self, form: str, plan: Plan, turns: int) -> str:
        """Somebody asks for more than can be made in time; the guest's name."""
        raise NotImplementedError

    async def arrived(self, name: str, cause: str | None, turns: int) -> None:
        """Somebody is there, who may be cut short for this from the start."""
        if cause is not None:
            self.scene.may_end(name, cause)
        if self.scene.drains:
            self.scene.may_end(name, "drain")
        await self.scene.turns(turns)

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
        self.check_always()

    def check_always(self) -> None:
        """What else holds between any two turns."""

    async def check_idle(self) -> None:
        """What else holds when nobody is there."""

    def teardown(self) -> None:
        scene = self.scene
        try:
            scene.run(scene.come_to_rest)
            self.holds()
            claims.check_answers(scene)
            self.check_answers()
            scene.run(lambda: claims.check_idle(scene))
            scene.run(self.check_idle)
            self.seen.update(str(ending.reason) for ending in scene.runner.statistics().ended)
            self.seen.update(scene.runner.served.statistics().misbehaviours)
            self.seen.update(self._told_apart())
            scene.guests.clear()
            scene.drains.clear()
            if not scene.broken:  # its traceback holds who was served last
                claims.check_forgotten()
            self.check_threads()
        finally:
            scene.close()

    def check_answers(self) -> None:
        """What else the clients hold in their hands."""

    def check_threads(self) -> None:
        assert set(threading.enumerate()) <= self.threads

    def _told_apart(self) -> Iterator[str]:
        for name, guest in self.scene.guests.items():
            account = self.scene.runner.find(name)
            if account is not None and guest.causes == {account.reason}:
                yield f"{account.detail if account.reason == 'drain' else account.reason} alone"


def run_until_seen(machine: type[Served], wanted: set[str], examples: int) -> None:
    """Draw orders until they came across all that must be, or they show nothing."""
    runs = settings(RUNS, max_examples=EXAMPLES or examples)

    for number in range(ROUNDS):
        run_state_machine_as_test(machine if EXAMPLES else seed(number)(machine), settings=runs)
        if not (missed := wanted - machine.seen):
            return
    pytest.fail(f"no run came across {missed}")
