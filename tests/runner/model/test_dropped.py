"""What a model's code leaves half-read is its work, too: its cleanup is waited for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.from_thread
import pytest

from streamkit._core import held, now
from streamkit.errors import StreamCancelled

from .conftest import Serve, ask

pytestmark = pytest.mark.asyncio_only

CLEANUP = 2.0  # seconds


class Engine:
    """Its abort takes a while."""

    def __init__(self) -> None:
        self.aborted: list[float] = []

    async def generate(self) -> AsyncIterator[str]:
        try:
            while True:
                yield "chunk"
        finally:
            await anyio.sleep(CLEANUP)
            self.aborted.append(now())


class Wraps(Engine):
    """As models do: nobody closes the inner generator."""

    async def predict(self, inputs: Any) -> AsyncIterator[str]:
        async for chunk in self.generate():
            yield chunk


class Iterates(Engine):
    """What some engines return: an iterator that has no `aclose()`."""

    async def predict(self, inputs: Any) -> Any:
        return Bare(self.generate())


class Bare:
    def __init__(self, items: AsyncIterator[str]) -> None:
        self._items = items

    def __aiter__(self) -> Bare:
        return self

    async def __anext__(self) -> str:
        return await anext(self._items)


class Breaks(Engine):
    async def predict(self, inputs: Any) -> str | None:
        async for chunk in self.generate():
            return chunk
        return None


@pytest.mark.parametrize("kind", [Wraps, Iterates])
async def test_a_slot_is_not_free_before_what_its_stream_dropped_has_ended(
    serve: Serve, kind: type[Engine]
) -> None:
    model: Any = kind()
    runner = serve(model)

    async def leave_between_two_chunks() -> None:
        with contextlib.suppress(StreamCancelled), runner.accept(request_id="r") as call:
            call.admit()
            result: Any = await call.predict("in", None)
            await anext(result.items)
            runner.cancel("r")
            call.token.raise_if_cancelled()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave_between_two_chunks)
    await anyio.sleep(CLEANUP / 2)
    assert (runner.slots.taken, model.aborted) == (1, [])
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.proved_after, model.aborted) == ("cancelled", CLEANUP, [CLEANUP])
    assert runner.slots.taken == 0
    assert held() == []


async def test_a_value_is_answered_at_once_and_its_slot_back_when_the_rest_has_ended(
    serve: Serve,
) -> None:
    model = Breaks()
    runner = serve(model)
    ended: list[float] = []

    async def one() -> None:
        assert await ask(runner) == "chunk"
        ended.append(now())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)

    assert ended == model.aborted == [CLEANUP, 2 * CLEANUP]


async def test_what_is_dropped_outside_any_request_is_the_loops(serve: Serve) -> None:
    model = Breaks()
    await ask(serve(model))
    await model.predict(None)
    await anyio.sleep(CLEANUP + 1)

    assert model.aborted == [CLEANUP, 2 * CLEANUP]


async def test_a_cleanup_that_hangs_is_given_up(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Hangs(Breaks):
        async def generate(self) -> AsyncIterator[str]:
            try:
                yield "chunk"
            finally:
                await anyio.sleep(1000)

    runner = serve(Hangs())
    assert await ask(runner) == "chunk"
    await runner.in_flight.wait_idle()

    assert 5 <= now() < 6
    assert runner.slots.taken == 0
    assert "the cleanup of <async_generator" in caplog.text


async def test_what_goes_on_after_a_whole_answer_is_not_lost_from_sight(serve: Serve) -> None:
    freed = anyio.Event()

    class Stubborn(Breaks):
        async def generate(self) -> AsyncIterator[str]:
            try:
                yield "chunk"
            finally:
                while not freed.is_set():
                    try:
                        await freed.wait()
                    except anyio.get_cancelled_exc_class():  # noqa: ASYNC103
                        pass

    runner = serve(Stubborn())
    assert await ask(runner, request_id="r") == "chunk"
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.reason) == ("quarantined", "error")
    assert account.detail == "its work goes on after its answer"
    assert runner.slots.quarantined == 1
    freed.set()
    await anyio.sleep(1)
    assert (runner.slots.taken, runner.slots.quarantined) == (0, 0)


@pytest.mark.realtime
async def test_what_a_thread_drops_is_closed_in_the_loop(serve: Serve) -> None:
    class Model:
        def __init__(self) -> None:
            self.closed = anyio.Event()

        async def generate(self) -> AsyncIterator[str]:
            try:
                while True:
                    yield "chunk"
            finally:
                self.closed.set()

        def predict(self, inputs: Any) -> str:
            return anyio.from_thread.run(self.generate().__anext__)

    model = Model()
    assert await ask(serve(model)) == "chunk"
    with anyio.fail_after(5):
        await model.closed.wait()
