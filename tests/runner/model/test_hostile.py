"""Models that resist: contained, reported, bounded; and what they held comes back when they end."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from streamkit import current_token
from streamkit._core import CancelSource, Reason, now
from streamkit.errors import StreamCancelled
from streamkit.runner._model._tenure import LOST_AFTER
from streamkit.testing import ThreadGate

from .conftest import Serve, ask

pytestmark = pytest.mark.asyncio_only


async def leave_after(seconds: float, source: CancelSource) -> None:
    await anyio.sleep(seconds)
    source.cancel(Reason.CLIENT_DISCONNECT)


async def cut(runner: Any, seconds: float, *, request_id: str = "r") -> None:
    """Ask, and leave after so many seconds."""
    source = CancelSource()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave_after, seconds, source)
        with pytest.raises(StreamCancelled):
            await ask(runner, token=source.token, request_id=request_id)


async def test_a_thread_that_does_not_end_holds_its_slot_in_quarantine_until_it_does(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    gate = ThreadGate()

    class Model:
        def predict(self, inputs: Any) -> str:
            gate.wait()
            return "late"

    runner = serve(Model(), predict_concurrency=2)
    await cut(runner, 1.0)
    assert now() == 1  # its caller was released at once

    await runner.in_flight.wait_idle()
    assert 6 <= now() < 7
    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.proof, account.misbehaviour) == ("quarantined", None, "ignored")
    books = runner.served.statistics()
    assert books is not None
    assert (books.quarantined, books.misbehaviours) == (1, {"ignored": 1})
    assert (runner.slots.taken, runner.slots.quarantined) == (1, 1)
    assert runner.not_ready() is None  # the other slot
    assert "its slot is quarantined until that ends" in caplog.text

    gate.open()
    while runner.slots.taken:  # noqa: ASYNC110 - the thread's end has no event here
        await anyio.sleep(0.01)
    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.proof) == ("cancelled", 6)
    assert runner.slots.quarantined == 0
    assert runner.statistics().quarantined == 0


async def test_work_that_goes_on_after_its_slot_is_back_quarantines_none(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    gate = ThreadGate()

    class Model:
        async def predict(self, inputs: Any) -> str:
            return "value"

        def postprocess(self, inputs: Any) -> None:
            gate.wait()

    runner = serve(Model())
    await cut(runner, 1.0)
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert account.phase == "quarantined"
    assert (runner.slots.taken, runner.slots.quarantined) == (0, 0)
    assert "it holds no slot" in caplog.text
    gate.open()
    while account.phase == "quarantined":
        await anyio.sleep(0.01)
        account = runner.find("r")
        assert account is not None
    assert (runner.slots.taken, runner.slots.quarantined) == (0, 0)


async def test_those_who_come_while_a_thread_runs_on_wait_for_its_slot(serve: Serve) -> None:
    gate = ThreadGate()

    class Model:
        def predict(self, inputs: Any) -> Any:
            if inputs != "in":
                gate.wait()
            return "served"

    runner = serve(Model())
    await cut(runner, 1.0)
    await runner.in_flight.wait_idle()
    assert runner.slots.quarantined == 1
    assert runner.not_ready() is None
    answers: list[Any] = []

    async def newcomer() -> None:
        answers.append(await ask(runner, "in"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(newcomer)
        await anyio.sleep(20)
        assert (answers, runner.slots.waiting) == ([], 1)
        gate.open()

    assert answers == ["served"]
    await anyio.sleep(LOST_AFTER)
    assert (runner.slots.lost, runner.not_ready()) == (0, None)


async def test_a_server_all_of_whose_slots_are_lost_says_that_it_is_not_ready(
    serve: Serve,
) -> None:
    gate = ThreadGate()

    class Model:
        def predict(self, inputs: Any) -> None:
            gate.wait()

    runner = serve(Model())
    await cut(runner, 1.0)
    await runner.in_flight.wait_idle()
    await anyio.sleep(LOST_AFTER)

    assert runner.not_ready() == "all slots of model model are quarantined"
    gate.open()
    while runner.slots.taken:  # noqa: ASYNC110 - the thread's end has no event here
        await anyio.sleep(0.01)
    assert runner.not_ready() is None
    assert runner.slots.lost == 0


async def test_a_coroutine_that_swallows_its_cancel_is_insisted_on(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    swallowed: list[float] = []

    class Model:
        async def predict(self, inputs: Any) -> str:
            while len(swallowed) < 3:
                try:
                    await anyio.sleep(1000)
                except anyio.get_cancelled_exc_class():  # noqa: ASYNC103
                    swallowed.append(now())
            return "stubborn"

    runner = serve(Model())
    await cut(runner, 1.0)
    await runner.in_flight.wait_idle()

    assert swallowed[0] == 1
    assert swallowed[-1] < 7
    assert "goes on: it swallows its cancel" in caplog.text
    assert runner.slots.taken == 0


async def test_an_async_generator_that_swallows_its_cancel_and_yields_on_is_ended(
    serve: Serve,
) -> None:
    made: list[int] = []

    class Model:
        async def predict(self, inputs: Any) -> AsyncIterator[int]:
            for step in range(1000):
                try:
                    await anyio.sleep(1)
                except anyio.get_cancelled_exc_class():  # noqa: ASYNC103
                    pass
                made.append(step)
                yield step

    runner = serve(Model())
    await cut(runner, 2.5)
    await runner.in_flight.wait_idle()

    assert len(made) <= 4
    assert runner.slots.taken == 0


@pytest.mark.parametrize("kind", ["async generator", "generator"])
async def test_an_error_in_finally_is_logged_and_costs_no_slot(
    serve: Serve, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    class Async:
        async def predict(self, inputs: Any) -> AsyncIterator[int]:
            try:
                while True:
                    await anyio.sleep(1)
                    yield 1
            finally:
                raise ZeroDivisionError("in finally")

    class Sync:
        def predict(self, inputs: Any) -> Iterator[int]:
            try:
                while True:
                    current_token().wait_in_thread(1)
                    yield 1
            finally:
                raise ZeroDivisionError("in finally")

    runner = serve(Async() if kind == "async generator" else Sync())
    source = CancelSource()
    with caplog.at_level(logging.WARNING):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave_after, 2.5, source)
            with pytest.raises((StreamCancelled, ZeroDivisionError)):
                await ask(runner, token=source.token, request_id="r")
        await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert account.reason == Reason.CLIENT_DISCONNECT
    assert "ZeroDivisionError: in finally" in caplog.text
    assert runner.slots.taken == 0


async def test_sync_code_that_asks_its_token_stops_at_once(serve: Serve) -> None:
    class Model:
        def predict(self, inputs: Any) -> None:
            current_token().wait_in_thread(1000)

    runner = serve(Model())
    await cut(runner, 1.0)
    await runner.in_flight.wait_idle()

    assert now() == 1
    assert runner.slots.taken == 0


class Computes:
    def predict(self, inputs: Any) -> None:
        while True:
            sum(range(1000))


class ComputesChunks:
    def predict(self, inputs: Any) -> Iterator[str]:
        yield "chunk"
        while True:
            sum(range(1000))


@pytest.mark.realtime
@pytest.mark.parametrize("kind", [Computes, ComputesChunks])
async def test_sync_code_is_interrupted_where_that_was_asked_for(
    serve: Serve, kind: type[object]
) -> None:
    runner = serve(kind(), interrupt_threads=True)
    await cut(runner, 0.1)
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert account.phase == "cancelled"
    assert runner.slots.taken == 0
