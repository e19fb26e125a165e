"""How requests end: what still runs is waited for, leftovers are tidied, the slot is back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import pytest
from starlette.requests import Request
from starlette.responses import Response

from streamkit._core import CancelSource, Reason, held, now
from streamkit.engines import Proof
from streamkit.errors import StreamCancelled
from streamkit.runner._model import ModelRunner
from streamkit.testing import wait_all_tasks_blocked

from .conftest import Serve, ask

pytestmark = pytest.mark.asyncio_only


class SlowToTidy:
    """Its preprocess takes a while to end."""

    def __init__(self, *, fails: bool, result: object) -> None:
        self.fails = fails
        self.result = result
        self.began: list[float] = []

    async def preprocess(self, inputs: Any) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await anyio.sleep(3)

    async def predict(self, inputs: AsyncIterator[int]) -> object:
        self.began.append(now())
        await anext(inputs)
        await anyio.sleep(1)
        if self.fails:
            raise ZeroDivisionError
        return self.result


async def answer(runner: ModelRunner) -> None:
    """As a server does with a response that the model made."""
    with runner.accept() as call:
        call.admit()
        await call.predict("in", None)
        call.answering()
        await call.complete()


@pytest.mark.parametrize(("fails", "answers"), [(False, False), (True, False), (False, True)])
async def test_the_slot_is_back_before_what_was_handed_on_is_tidied(
    serve: Serve, fails: bool, answers: bool
) -> None:
    model = SlowToTidy(fails=fails, result=Response() if answers else 1)
    runner = serve(model)

    async def one() -> None:
        if answers:
            await answer(runner)
        elif fails:
            with pytest.raises(ZeroDivisionError):
                await ask(runner)
        else:
            await ask(runner)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)

    assert model.began == [0, 1]


class HandsOnATaskGroup:
    """Its preprocess holds one across its yields."""

    async def preprocess(self, inputs: Any) -> AsyncIterator[int]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 1000)
            yield 1
            yield 2


@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_handed_on_is_closed_in_the_task_that_drove_it(
    serve: Serve, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    class Model(HandsOnATaskGroup):
        async def predict(self, inputs: AsyncIterator[int]) -> int:
            self.kept = inputs
            await anext(inputs)
            if fails:
                raise ZeroDivisionError
            return 1

    runner = serve(Model())
    if fails:
        with pytest.raises(ZeroDivisionError):
            await ask(runner)
    else:
        await ask(runner)
    await runner.in_flight.wait_idle()

    assert now() == 0
    assert caplog.text == ""


@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_stream_reads_of_it_is_closed_there_too(
    serve: Serve, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    class Model(HandsOnATaskGroup):
        async def predict(self, inputs: AsyncIterator[int]) -> AsyncIterator[int]:
            self.kept = inputs
            yield await anext(inputs)
            if fails:
                raise ZeroDivisionError
            await anyio.sleep(1000)

    async def cut_short() -> None:
        with pytest.raises(ZeroDivisionError if fails else StreamCancelled):
            await ask(runner, request_id="r")

    runner = serve(Model())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cut_short)
        await wait_all_tasks_blocked()
        runner.cancel("r")
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert (account.phase, now(), held()) == ("failed" if fails else "cancelled", 0, [])
    assert caplog.text == ""


async def test_a_stream_that_nobody_closes_ends_with_its_request(serve: Serve) -> None:
    class Model:
        closed = False

        async def predict(self, inputs: Any) -> AsyncIterator[str]:
            try:
                while True:
                    yield "chunk"
            finally:
                self.closed = True

    async def read_once() -> None:
        with runner.accept(request_id="r") as call:
            call.admit()
            result: Any = await call.predict("in", None)
            await anext(result.items)
            await call.complete()

    model = Model()
    runner = serve(model)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_once)
    await runner.in_flight.wait_idle()

    assert model.closed
    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.detail) == ("failed", "the answer ended before its output did")
    assert runner.slots.taken == 0


async def test_a_threads_stream_that_is_not_read_to_its_end_fails_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    closed = anyio.Event()

    class Model:
        def predict(self, inputs: Any) -> Iterator[str]:
            try:
                while True:
                    yield "chunk"
            finally:
                anyio.from_thread.run_sync(closed.set)

    async def read(chunks: AsyncIterator[str]) -> None:
        await anext(chunks)

    runner = serve(Model())
    with runner.accept(request_id="r") as call:
        call.admit()
        result: Any = await call.predict("in", None)
        await result.items.drive(read)
        with anyio.fail_after(0.1):  # its reader has left it, and nobody waits for the request
            await closed.wait()
        await call.complete()
    await runner.in_flight.wait_idle()

    totals = runner.statistics()
    assert (totals.failed, totals.violations, held()) == (1, 0, [])
    assert "failed" not in caplog.text


async def test_what_a_model_returns_after_it_was_told_is_no_answer(serve: Serve) -> None:
    class Model:
        async def predict(self, inputs: Any, request: Request) -> str:
            await anyio.sleep(2)
            return "half" if await request.is_disconnected() else "whole"

    class Asking:
        async def is_disconnected(self) -> bool:
            return call.asked()

    runner, source = serve(Model()), CancelSource()
    source.cancel_after(1)
    with runner.accept(token=source.token, request_id="r") as call:
        call.admit()
        with pytest.raises(StreamCancelled):
            await call.predict("in", Asking())
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.proved_after) == ("cancelled", 1)


async def test_a_value_is_delivered_when_its_answer_is_complete(serve: Serve) -> None:
    class Model:
        async def predict(self, inputs: Any) -> str:
            return "value"

    runner = serve(Model())
    await ask(runner, request_id="r")

    account = runner.find("r")
    assert account is not None
    assert (account.produced, account.delivered, account.undelivered) == (1, 1, 0)
    assert account.proof is Proof.JOINED


async def test_whoever_was_cancelled_before_takes_no_place(serve: Serve) -> None:
    class Model:
        async def predict(self, inputs: Any) -> str:
            return "value"

    runner, source = serve(Model()), CancelSource()
    source.cancel(Reason.REQUESTED)

    with runner.accept(token=source.token) as call:
        with pytest.raises(StreamCancelled):
            call.admit()
        assert (call.admitted, runner.admission.admitted) == (False, 0)
