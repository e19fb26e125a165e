"""Whatever clients and operators do in whatever order to a model class, its work ends with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import anyio
import anyio.from_thread
import pytest
from fastapi import Request
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from streamkit._core import Phase
from streamkit.server.app import Application
from streamkit.streams._workers import close_idle_threads
from streamkit.testing._clock import virtual_loop
from tests.server.model.conftest import AtOnce
from tests.server.model.test_leaving import pause

from . import claims
from .machine import EXAMPLES, PLANS, SERVERS, Plan, Served, guests, run_until_seen
from .scene import STEP, Guest, Scene

FORMS = {"raw": "*/*", "events": "text/event-stream", "joined": "application/json"}
Inputs = dict[str, Any]  # name: whose; steps: how many; fails: in which, if in any


class Counted:
    """Counts by itself what of each request is running, and what it gave."""

    streams = True

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.in_slots: Counter[str] = Counter()
        self.most = 0  # in slots at one time
        self.made: Counter[str] = Counter()

    @contextmanager
    def work(self, inputs: Inputs, *, slot: bool = True) -> Iterator[None]:
        name = inputs["name"]
        self.running[name] += 1
        self.in_slots[name] += slot
        self.most = max(self.most, self.in_slots.total())
        try:
            yield
        finally:
            self.in_slots[name] -= slot
            self.running[name] -= 1

    def give(self, inputs: Inputs, step: int) -> str:
        if step == inputs["fails"]:
            raise ValueError(f"step {step}")
        self.made[inputs["name"]] += 1
        return f"w{step} "


class AsyncGenerator(Counted):
    async def predict(self, inputs: Inputs) -> AsyncIterator[str]:
        with self.work(inputs):
            for step in range(inputs["steps"]):
                await anyio.sleep(STEP)
                yield self.give(inputs, step)


class Asks(Counted):
    """It is asked to end and not interrupted, as Truss's documentation has it."""

    async def predict(self, inputs: Inputs, request: Request) -> AsyncIterator[str]:
        with self.work(inputs):
            for step in range(inputs["steps"]):
                await anyio.sleep(STEP)
                if await request.is_disconnected():
                    return
                yield self.give(inputs, step)


class Generator(Counted):
    def predict(self, inputs: Inputs) -> Iterator[str]:
        with self.work(inputs):
            for step in range(inputs["steps"]):
                pause(STEP)
                yield self.give(inputs, step)


class Stages(Counted):
    streams = False

    async def preprocess(self, inputs: Inputs) -> Inputs:
        return await self.steps_of(inputs, slot=False)

    async def predict(self, inputs: Inputs) -> Inputs:
        return await self.steps_of(inputs)

    async def postprocess(self, inputs: Inputs) -> str:
        await self.steps_of(inputs, slot=False)
        return inputs["name"]

    async def steps_of(self, inputs: Inputs, *, slot: bool = True) -> Inputs:
        with self.work(inputs, slot=slot):
            for step in range(inputs["steps"] // 3 + 1):
                await anyio.sleep(STEP)
                self.give(inputs, step)
        return inputs


class Function(Counted):
    streams = False

    def predict(self, inputs: Inputs) -> str:
        with self.work(inputs):
            for step in range(inputs["steps"]):
                if self.rest():
                    break
                self.give(inputs, step)
        return inputs["name"]

    def rest(self) -> bool:
        return pause(STEP)


class Deaf(Function):
    """It does not look at its token: what it began, it ends."""

    def rest(self) -> bool:
        anyio.from_thread.run(_sleep)
        return False


async def _sleep() -> None:
    loop = virtual_loop()
    loop.thread_parked()
    await anyio.sleep(STEP)
    loop.thread_started()


ALWAYS = {"None", "client_disconnect", "deadline", "drain", "requested", "error"}
# What each must have come across, or its runs show nothing.
KINDS: dict[type[Counted], set[str]] = {
    AsyncGenerator: ALWAYS | {"write_stalled alone", "client_disconnect alone"},
    Asks: {"None", "client_disconnect", "deadline", "write_stalled"},
    Generator: ALWAYS | {"write_stalled", "client_disconnect alone"},
    Stages: ALWAYS,
    Function: ALWAYS,
    Deaf: {"None", "client_disconnect", "ignored"},
}


class ModelScene(Scene):
    # What the model raised, and work of its that does not end.
    TOLD_ELSEWHERE = frozenset({"streamkit.server", "streamkit.runner", "streamkit.streams"})

    def __init__(self, kind: type[Counted], slots: int, *, server: str) -> None:
        self.model = kind()
        self.slots = slots
        super().__init__(server=server)

    def make_app(self) -> Application:
        settings = self.settings(predict_concurrency=self.slots)
        service = AtOnce(self.model, settings)
        service.load()
        return Application(service, settings)

    def arrive(self, form: str, steps: int, fails: int | None, **client: Any) -> str:
        body = {"name": self.next_name(), "steps": steps, "fails": fails}
        exchange = self.ask("/predict", FORMS[form], body, **client)
        streams = self.model.streams
        guest = Guest(exchange, form if streams else "joined", body, steps if streams else 1)
        if fails is not None:
            guest.causes.add("error")
        return self.come(guest)


class ServedModel(Served):
    """The whole of a served model class."""

    kind: ClassVar[type[Counted]]
    forms = tuple(FORMS)
    scene: ModelScene

    @initialize(slots=st.integers(1, 3), server=st.sampled_from(SERVERS))
    def open(self, slots: int, server: str) -> None:
        self.begin()
        self.scene = ModelScene(self.kind, slots, server=server)

    @rule(
        target=guests,
        form=st.sampled_from(list(FORMS)),
        steps=st.sampled_from([1, 3, 10, 300]),
        fails=st.sampled_from([None, None, None, None, 0, 2]),
        plan=st.sampled_from(PLANS),
        turns=st.sampled_from([0, 0, 1, 2, 3, 5, 8, 12]),
    )
    def arrive(self, form: str, steps: int, fails: int | None, plan: Plan, turns: int) -> str:
        client, cause = plan
        names: list[str] = []

        async def act() -> None:
            names.append(self.scene.arrive(form, steps, fails, **client))
            await self.arrived(names[0], cause, turns)

        self.scene.run(act)
        return names[0]

    def arrive_for_long(self, form: str, plan: Plan, turns: int) -> str:
        return self.arrive(form, 300, None, plan, turns)

    def check_always(self) -> None:
        scene, model = self.scene, self.scene.model
        books = scene.runner.served.statistics()
        assert model.most <= scene.slots, "more of it ran than there are slots"
        assert model.in_slots.total() <= books.running, "a slot was given back too early"
        for name in scene.guests:
            account = scene.runner.find(name)
            if account is None:
                assert not model.running[name], f"{name} was refused, and runs"
            elif claims.is_over(account) and not account.given_up:
                assert not model.running[name], f"{name} is over, and its work goes on: {account}"
                if model.streams:
                    assert account.produced <= model.made[name], account

    def check_answers(self) -> None:
        for name, guest in self.scene.guests.items():
            account = self.scene.runner.find(name)
            if guest.exchange.status == 200:
                check_text(self.scene.model, guest)
            if account is not None and account.phase is Phase.FINISHED and self.kind.streams:
                assert account.produced == self.scene.model.made[name], account

    async def check_idle(self) -> None:
        assert not self.scene.model.running.total()
        if self.kind is not Deaf:
            claims.check_honest(self.scene)

    def check_threads(self) -> None:
        close_idle_threads()  # parked on purpose, for the next
        super().check_threads()


def check_text(model: Counted, guest: Guest) -> None:
    """An answer is the model's, to where it was cut; and whole, where it looks so."""
    exchange, asks = guest.exchange, guest.asks
    text, whole = exchange.text, "".join(f"w{step} " for step in range(asks["steps"]))
    if not model.streams:
        whole = f'"{asks["name"]}"'
    elif guest.form == "events":
        text = "".join(each.data for each in exchange.events if each.event == "message")
    elif guest.form == "joined":
        whole = f'"{whole}"'
    assert whole.startswith(text), (exchange, text)
    if exchange.completed and guest.form != "events":
        assert text == whole, exchange


@pytest.mark.timeout(0 if EXAMPLES else 120)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_request_ends_once_and_its_slot_comes_back_when_its_work_has_ended(
    kind: type[Counted],
) -> None:
    class Machine(ServedModel):
        seen: ClassVar[set[str]] = set()

    Machine.kind = kind

    run_until_seen(Machine, KINDS[kind], 8)
