"""Models written for Truss ask `is_disconnected()` themselves: they get the time to act on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import pytest

from streamkit import current_token
from streamkit._core import CancelSource, Reason, now
from streamkit.errors import StreamCancelled
from streamkit.runner._model import ASK_GRACE, ModelCall
from streamkit.testing._clock import virtual_loop

from .conftest import Serve

pytestmark = pytest.mark.asyncio_only


class Asked:
    """What the server's request does: it hands the question on to the call."""

    def __init__(self, call: ModelCall) -> None:
        self._call = call

    async def is_disconnected(self) -> bool:
        return self._call.asked()


class TrussModel:
    """As the documentation of Truss has it."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.made = 0
        self.aborted_at: float | None = None
        self.ended_at: float | None = None

    async def predict(self, request: Any) -> AsyncIterator[str]:
        try:
            while True:
                await anyio.sleep(self.step)
                self.made += 1
                yield "chunk"
                if await request.is_disconnected():
                    await anyio.sleep(0.1)  # engine.abort(request_id)
                    self.aborted_at = now()
                    return
        finally:
            self.ended_at = now()


async def stream(runner: Any, source: CancelSource, got: list[str]) -> None:
    async def read(chunks: AsyncIterator[str]) -> None:
        got.extend([chunk async for chunk in chunks])

    with runner.accept(token=source.token, request_id="r") as call:
        call.admit()
        result = await call.predict(Asked(call), None)
        await result.items.drive(read)


async def test_who_asks_itself_gets_to_abort_its_engine(serve: Serve) -> None:
    model, source = TrussModel(step=1.0), CancelSource()
    runner = serve(model)
    source.cancel_after(2.5)

    with pytest.raises(StreamCancelled):
        await stream(runner, source, [])
    await runner.in_flight.wait_idle()

    assert model.aborted_at == pytest.approx(3.1)
    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.reason) == ("cancelled", Reason.DEADLINE)
    assert account.told_after == pytest.approx(0.5)  # when it asked
    assert (account.produced, account.wasted) == (3, 1)
    assert runner.slots.taken == 0


async def test_who_asks_too_seldom_is_cut_after_the_grace(serve: Serve) -> None:
    model, source = TrussModel(step=1000.0), CancelSource()
    runner = serve(model)
    source.cancel_after(2.5)

    with pytest.raises(StreamCancelled):
        await stream(runner, source, [])
    await runner.in_flight.wait_idle()

    assert model.aborted_at is None
    assert model.ended_at == pytest.approx(2.5 + ASK_GRACE)
    assert runner.slots.taken == 0


async def test_who_does_not_ask_is_cut_in_the_same_turn(serve: Serve) -> None:
    ended: list[float] = []

    class Model:
        async def predict(self, inputs: Any) -> AsyncIterator[str]:
            try:
                while True:
                    await anyio.sleep(1)
                    yield "chunk"
            finally:
                ended.append(now())

    source = CancelSource()
    runner = serve(Model())
    source.cancel_after(2.5)

    with pytest.raises(StreamCancelled):
        await stream(runner, source, [])
    await runner.in_flight.wait_idle()

    assert ended == [2.5]


async def test_who_is_cancelled_by_its_own_first_lines_is_cut_where_it_waits(serve: Serve) -> None:
    source = CancelSource()

    class Model:
        cut = False

        async def predict(self, request: Any) -> None:
            source.cancel(Reason.REQUESTED, "by itself")
            try:
                await anyio.sleep(60)
            except anyio.get_cancelled_exc_class():
                self.cut = True
                raise

    model = Model()
    started = now()

    with pytest.raises(StreamCancelled):
        await stream(serve(model), source, [])

    assert model.cut
    assert now() == started


async def test_who_asked_has_the_time_of_its_cleanup_as_well(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Model:
        async def predict(self, request: Any) -> AsyncIterator[str]:
            try:
                while True:
                    yield "chunk"
                    await request.is_disconnected()
                    await anyio.sleep(1000)
            finally:
                await anyio.sleep(4.5)

    source = CancelSource()
    runner = serve(Model())
    source.cancel_after(1)

    with pytest.raises(StreamCancelled):
        await stream(runner, source, [])
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert caplog.text == ""  # it was not given up
    assert account.phase == "cancelled"
    assert account.proved_after == pytest.approx(ASK_GRACE + 4.5)


async def test_no_line_of_a_model_is_run_for_whoever_was_cancelled_before(serve: Serve) -> None:
    begun: list[object] = []

    class Model:
        async def preprocess(self, inputs: Any) -> Any:
            begun.append(inputs)
            return inputs

        async def predict(self, inputs: Any) -> str:
            begun.append(inputs)
            return "value"

    runner, source = serve(Model()), CancelSource()
    with runner.accept(token=source.token) as call:
        call.admit()
        source.cancel(Reason.REQUESTED)
        with pytest.raises(StreamCancelled):
            await call.predict("in", None)

    assert begun == []


class AsksAndSees:
    """Its engine hangs on the token; it asks as well, a second later."""

    def __init__(self) -> None:
        self.told_at: float | None = None
        self.asked_at: float | None = None

    def watch(self) -> None:
        current_token().add_listener(self.told)

    def told(self, _: object) -> None:
        self.told_at = now()


class Asynchronous(AsksAndSees):
    async def predict(self, request: Any) -> Any:
        return self.chunks(request)

    async def chunks(self, request: Any) -> AsyncIterator[str]:
        self.watch()
        yield "chunk"
        await current_token().wait()
        await anyio.sleep(1)
        assert await request.is_disconnected()
        self.asked_at = now()


class Iterates(Asynchronous):
    """As engines do."""

    async def predict(self, request: Any) -> Any:
        return Bare(self.chunks(request))


class InThread(AsksAndSees):
    def predict(self, request: Any) -> Iterator[str]:
        self.watch()
        yield "chunk"
        anyio.from_thread.run(self.pause)
        assert anyio.from_thread.run(request.is_disconnected)
        self.asked_at = anyio.from_thread.run_sync(now)

    async def pause(self) -> None:
        loop = virtual_loop()
        loop.thread_parked()  # it waits for us: time may pass
        await current_token().wait()
        await anyio.sleep(1)
        loop.thread_started()


class Bare:
    def __init__(self, chunks: AsyncIterator[str]) -> None:
        self.chunks = chunks

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await anext(self.chunks)


@pytest.mark.parametrize("kind", [Asynchronous, InThread, Iterates])
async def test_the_token_of_who_asks_tells_it_at_once(
    serve: Serve, kind: type[AsksAndSees]
) -> None:
    model: Any = kind()
    runner, source = serve(model), CancelSource()
    source.cancel_after(1)
    with pytest.raises(StreamCancelled):
        await stream(runner, source, [])
    await runner.in_flight.wait_idle()

    assert (model.told_at, model.asked_at, now()) == (1, 2, 2)
    account = runner.find("r")
    assert account is not None
    assert account.phase == "cancelled"
