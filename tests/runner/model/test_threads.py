"""A thread that a model's coroutine waits for is its work: the slot waits until it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.concurrency import run_in_threadpool

from streamkit._core import held, now
from streamkit.engines import Proof
from streamkit.errors import StreamCancelled
from streamkit.runner._model import ModelRunner
from streamkit.testing import ThreadGate, wait_all_tasks_blocked

from .conftest import Serve, ask

pytestmark = pytest.mark.asyncio_only

Wait = Callable[[Callable[[], Any]], Awaitable[Any]]


async def in_own_pool(call: Callable[[], Any]) -> Any:
    pool = ThreadPoolExecutor(1)
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, call)
    finally:
        pool.shutdown(wait=False)


async def in_a_group(call: Callable[[], Any]) -> Any:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(asyncio.to_thread(call))
    return task.result()


WAYS: dict[str, Wait] = {
    "asyncio.to_thread": asyncio.to_thread,
    "run_in_executor": in_own_pool,
    # Looked up when it is called, as by a model that was imported after the server.
    "anyio": lambda call: anyio.to_thread.run_sync(call),  # noqa: PLW0108
    "abandoned": lambda call: anyio.to_thread.run_sync(call, abandon_on_cancel=True),
    "starlette": run_in_threadpool,
    "in a task group": in_a_group,
}


class Computes:
    """In a thread, for as long as its gate is shut; a stream does so before its second chunk."""

    def __init__(self, way: str) -> None:
        self.wait = WAYS[way]
        self.gate = ThreadGate()
        self.began = 0

    async def predict(self, inputs: str) -> Any:
        self.began += 1
        if inputs == "quick":
            return "value"
        return self.chunks() if inputs == "stream" else await self.wait(self.gate.wait)

    async def chunks(self) -> AsyncIterator[str]:
        yield "chunk"
        await self.wait(self.gate.wait)


@pytest.fixture
async def model(way: str) -> AsyncIterator[Computes]:
    computes = Computes(way)
    with computes.gate:
        yield computes


async def cut_short(runner: ModelRunner, inputs: str) -> None:
    """It is cancelled while its thread computes."""

    async def one() -> None:
        with pytest.raises(StreamCancelled):
            await ask(runner, inputs, request_id="r")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await wait_all_tasks_blocked()
        assert runner.cancel("r")


@pytest.mark.parametrize("inputs", ["value", "stream"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_slot_is_not_free_before_the_thread_has_ended(
    serve: Serve, model: Computes, inputs: str
) -> None:
    runner = serve(model)
    await cut_short(runner, inputs)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, runner, "quick")
        await anyio.sleep(1)
        account = runner.find("r")
        assert account is not None
        assert (account.phase, runner.slots.waiting, model.began) == ("aborting", 1, 1)
        model.gate.open()
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.proof) == ("cancelled", Proof.JOINED)
    assert (now(), runner.slots.taken, held()) == (1, 0, [])


@pytest.mark.parametrize("way", WAYS)
async def test_one_that_goes_on_is_reported_with_its_line_and_its_slot_quarantined(
    serve: Serve, model: Computes, caplog: pytest.LogCaptureFixture
) -> None:
    runner = serve(model)
    await cut_short(runner, "value")
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.proof, now()) == ("quarantined", None, 5)
    assert "ThreadGate.wait, which nobody waits for any more, still runs in its " in caplog.text
    model.gate.open()
    await wait_all_tasks_blocked()
    account = runner.find("r")
    assert account is not None
    assert account.phase == "cancelled"
    assert (runner.slots.taken, runner.slots.quarantined) == (0, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_what_comes_back_is_what_it_returned(serve: Serve, model: Computes, way: str) -> None:
    model.gate.open()
    runner = serve(model)

    assert await ask(runner, "value") is None  # what a gate returns
    assert await ask(runner, "stream") == ["chunk"]
    assert runner.slots.taken == 0


@pytest.mark.realtime  # to a virtual clock, a call that waits for its thread is one that computes
async def test_a_call_that_waits_for_a_thread_is_never_begun_for_who_has_left(serve: Serve) -> None:
    began: list[str] = []

    class Model:
        async def predict(self, inputs: str) -> None:
            if inputs == "second":
                asyncio.get_running_loop().call_soon(runner.cancel, "r")
            await asyncio.get_running_loop().run_in_executor(pool, self.compute, inputs)

        def compute(self, inputs: str) -> None:
            began.append(inputs)
            gate.wait()

    pool = ThreadPoolExecutor(1)
    runner = serve(Model(), predict_concurrency=2)
    async with anyio.create_task_group() as tasks:
        with ThreadGate() as gate:
            tasks.start_soon(ask, runner, "first")
            await gate.wait_reached()
            with pytest.raises(StreamCancelled):
                await ask(runner, "second", request_id="r")
            assert runner.slots.taken == 1
    await runner.in_flight.wait_idle()
    pool.shutdown()

    assert began == ["first"]


async def test_a_thread_that_nobody_waited_for_is_not_the_requests(serve: Serve) -> None:
    class Model:
        async def predict(self, inputs: str) -> str:
            asyncio.get_running_loop().run_in_executor(None, gate.wait)
            return "value"

    with ThreadGate() as gate:
        runner = serve(Model())
        assert await ask(runner) == "value"
        assert (now(), runner.slots.taken) == (0, 0)
