"""A model that fails has failed: what of it still ran is ended, and the books call it no cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from streamkit import current_token
from streamkit._core import CancelSource, held, now
from streamkit.errors import StreamCancelled
from streamkit.runner._model import ModelRunner
from streamkit.testing import ThreadGate

from .conftest import Serve, ask

pytestmark = pytest.mark.asyncio_only


async def break_off(runner: ModelRunner) -> None:
    """Who reads the stream cannot go on after its first chunk."""

    async def read(chunks: AsyncIterator[Any]) -> None:
        async for _ in chunks:
            raise ZeroDivisionError

    with runner.accept(request_id="r") as call:
        call.admit()
        result: Any = await call.predict("in", None)
        await result.items.drive(read)


async def test_a_generator_in_its_thread_is_ended_when_its_answer_breaks(serve: Serve) -> None:
    ended: list[str] = []

    class Model:
        def predict(self, inputs: Any) -> Iterator[str]:
            try:
                yield "chunk"
                current_token().wait_in_thread(1000)
                yield "another"
            finally:
                ended.append("ended")

    runner = serve(Model())
    with pytest.raises(ZeroDivisionError):
        await break_off(runner)
    await runner.in_flight.wait_idle()

    assert ended == ["ended"]
    assert now() == 0
    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.reason, account.detail) == (
        "failed",
        "error",
        "ZeroDivisionError",
    )
    assert account.produced == account.delivered + account.undelivered
    assert runner.slots.taken == 0
    assert held() == []
    totals = runner.statistics()
    assert (totals.failed, totals.violations) == (1, 0)


async def test_a_thread_that_outlives_its_failure_holds_its_slot_in_quarantine(
    serve: Serve,
) -> None:
    gate = ThreadGate()

    class Model:
        def predict(self, inputs: Any) -> Iterator[str]:
            yield "chunk"
            gate.wait()
            yield "another"

    runner = serve(Model())
    with pytest.raises(ZeroDivisionError):
        await break_off(runner)
    await runner.in_flight.wait_idle()

    assert now() < 10
    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.reason) == ("quarantined", "error")
    assert runner.slots.quarantined == 1
    gate.open()


async def test_a_generator_that_raises_has_failed_however_fast_it_did(serve: Serve) -> None:
    class Model:
        def predict(self, inputs: Any) -> Iterator[str]:
            raise ZeroDivisionError
            yield

    runner = serve(Model())
    for _ in range(50):
        with pytest.raises(ZeroDivisionError):
            await ask(runner)
        await runner.in_flight.wait_idle()

    assert runner.statistics().failed == 50


async def test_what_preprocess_handed_on_is_closed_when_its_stream_fails(serve: Serve) -> None:
    class Model:
        closed = False

        async def preprocess(self, inputs: Any) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                await anyio.sleep(0.1)
                self.closed = True

        async def predict(self, inputs: AsyncIterator[int]) -> AsyncIterator[str]:
            self.kept = inputs  # so that it is not the collector who closes it
            async for _ in inputs:
                yield "chunk"
                raise ZeroDivisionError

    model = Model()
    runner = serve(model)
    with pytest.raises(ZeroDivisionError):
        await ask(runner, request_id="r")
    await runner.in_flight.wait_idle()

    assert model.closed
    account = runner.find("r")
    assert account is not None
    assert account.phase == "failed"
    assert held() == []


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
async def test_what_the_cleanup_of_a_generator_raises_is_logged_and_no_more(
    serve: Serve, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    class Model:
        async def preprocess(self, inputs: Any) -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                raise error("in finally")

        async def predict(self, inputs: AsyncIterator[int]) -> int:
            self.kept = inputs
            await anext(inputs)
            await anyio.sleep(1000)
            return 1

    runner, source = serve(Model()), CancelSource()
    source.cancel_after(1)
    with pytest.raises(StreamCancelled):
        await ask(runner, token=source.token, request_id="r")
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert account.phase == "cancelled"
    assert runner.slots.taken == 0
    assert "in finally" in caplog.text


async def test_what_preprocess_handed_on_is_closed_when_a_thread_that_was_given_up_ends(
    serve: Serve,
) -> None:
    gate, closed = ThreadGate(), anyio.Event()

    class Model:
        def preprocess(self, inputs: Any) -> Iterator[int]:
            try:
                yield 1
                yield 2
            finally:
                anyio.from_thread.run_sync(closed.set)

        def predict(self, inputs: Iterator[int]) -> int:
            self.kept = inputs
            next(inputs)
            gate.wait()
            return 1

    runner, source = serve(Model()), CancelSource()
    source.cancel_after(1)
    with pytest.raises(StreamCancelled):
        await ask(runner, token=source.token)
    await runner.in_flight.wait_idle()
    assert runner.slots.quarantined == 1
    assert not closed.is_set()

    gate.open()
    with anyio.fail_after(1):
        await closed.wait()
        while held():  # noqa: ASYNC110 - the thread's end has no event here
            await anyio.sleep(0.01)
    assert runner.slots.taken == 0
