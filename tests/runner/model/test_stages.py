"""What each stage gets, what a model may return, and what of it is counted."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from streamkit import cancellable, current_token
from streamkit._core import CancelSource, Reason
from streamkit.errors import StreamCancelled, UsageBug
from streamkit.runner._model import Answer
from streamkit.testing import ThreadGate

from .conftest import Serve, ask

pytestmark = pytest.mark.asyncio_only

colour: ContextVar[str] = ContextVar("colour", default="none")


def a_request() -> Request:
    return Request({"type": "http", "method": "POST", "path": "/", "headers": []})


async def test_the_request_is_the_identical_object_in_all_stages(serve: Serve) -> None:
    seen: list[Any] = []

    class Model:
        def preprocess(self, inputs: Any, request: Request) -> Any:
            seen.append(request)
            return inputs

        async def predict(self, inputs: Any, request: Request) -> Any:
            seen.append(request)
            return inputs

        def postprocess(self, inputs: Any, request: Request) -> Any:
            seen.append(request)
            return inputs

    request = a_request()

    assert await ask(serve(Model()), 7, request=request) == 7
    assert [each is request for each in seen] == [True] * 3


async def test_context_variables_reach_from_an_async_preprocess_into_a_generator(
    serve: Serve,
) -> None:
    class Model:
        async def preprocess(self, inputs: Any) -> Any:
            colour.set("red")
            return inputs

        async def predict(self, inputs: Any) -> AsyncIterator[str]:
            yield colour.get()

    assert await ask(serve(Model())) == ["red"]


async def test_one_task_drives_an_async_generator_from_start_to_end(serve: Serve) -> None:
    class Model:
        async def predict(self, inputs: Any) -> AsyncIterator[int]:
            async with anyio.create_task_group():  # leaves in another task: an error
                with anyio.fail_after(5):
                    for step in range(3):
                        await anyio.sleep(0.1)
                        yield step

    assert await ask(serve(Model())) == [0, 1, 2]


async def test_a_sync_generator_stays_on_one_thread(serve: Serve) -> None:
    threads: set[int] = set()

    class Model:
        def predict(self, inputs: Any) -> Iterator[int]:
            for step in range(3):
                threads.add(threading.get_ident())
                yield step

    assert await ask(serve(Model())) == [0, 1, 2]
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


async def test_sync_stages_run_beside_the_loop_as_many_as_the_slots_admit(serve: Serve) -> None:
    gate = ThreadGate()

    class Model:
        def predict(self, inputs: Any) -> str:
            gate.wait()
            return "done"

    runner = serve(Model(), predict_concurrency=60)  # more than anyio's 40 threads

    async with anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(ask, runner)
        while gate.waiting < 60:  # noqa: ASYNC110 - threads have no event that the loop could wait for
            await anyio.sleep(0.01)
        gate.open()

    assert runner.statistics().finished == 60


async def test_a_sync_wrapper_around_a_coroutine_is_awaited(serve: Serve) -> None:
    class Model:
        def predict(self, inputs: Any) -> Any:
            return self._later(inputs)

        async def _later(self, inputs: Any) -> Any:
            await anyio.sleep(0.1)
            return inputs

    assert await ask(serve(Model()), 3) == 3


async def test_a_method_that_is_cancellable_already_is_served_as_it_is(serve: Serve) -> None:
    class Model:
        @cancellable
        async def predict(self, inputs: Any) -> AsyncIterator[int]:
            yield 1
            yield 2

    assert await ask(serve(Model())) == [1, 2]


async def test_an_object_that_only_makes_async_iterators_is_a_stream(serve: Serve) -> None:
    class Results:
        async def __aiter__(self) -> AsyncIterator[int]:
            yield 1

    class Model:
        def predict(self, inputs: Any) -> Any:
            return Results()

    assert await ask(serve(Model())) == [1]


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, "text", None, 0, (1,)])
async def test_what_is_no_iterator_is_a_value(serve: Serve, value: object) -> None:
    class Model:
        def predict(self) -> Any:
            return value

    assert await ask(serve(Model())) == value


async def test_a_response_is_an_answer_and_keeps_its_slot_until_it_was_sent(serve: Serve) -> None:
    class Model:
        def predict(self) -> Any:
            return PlainTextResponse("hello")

    runner = serve(Model())
    with runner.accept() as call:
        call.admit()
        assert isinstance(await call.predict(None, None), Answer)
        assert runner.slots.taken == 1
        await call.complete()

    assert runner.slots.taken == 0


@pytest.mark.parametrize("what", ["stream", "response"])
async def test_postprocess_takes_neither_a_stream_nor_a_response(serve: Serve, what: str) -> None:
    class Model:
        def predict(self) -> Any:
            return iter([1]) if what == "stream" else PlainTextResponse("hello")

        def postprocess(self, inputs: Any) -> Any:
            return inputs

    runner = serve(Model())

    with pytest.raises(UsageBug, match="`postprocess` cannot take"):
        await ask(runner)

    await runner.in_flight.wait_idle()
    assert runner.slots.taken == 0


async def test_a_generator_preprocess_runs_in_the_slot_and_is_closed(serve: Serve) -> None:
    slots_then: list[int] = []
    closed: list[bool] = []

    class Model:
        async def preprocess(self, inputs: Any) -> AsyncIterator[int]:
            try:
                slots_then.append(runner.slots.taken)
                yield 1
                yield 2
            finally:
                closed.append(True)

        async def predict(self, inputs: Any) -> int:
            return await anext(inputs)

    runner = serve(Model())

    assert await ask(runner) == 1
    assert slots_then == [1]
    assert closed == [True]


async def test_postprocess_runs_outside_the_slot(serve: Serve) -> None:
    taken: list[int] = []

    class Model:
        async def predict(self, inputs: Any) -> int:
            taken.append(runner.slots.taken)
            return 1

        async def postprocess(self, inputs: Any) -> int:
            taken.append(runner.slots.taken)
            return inputs

    runner = serve(Model())
    await ask(runner)

    assert taken == [1, 0]


async def test_the_token_in_the_model_is_the_requests_own(serve: Serve) -> None:
    tokens: list[object] = []

    class Model:
        def preprocess(self, inputs: Any) -> Any:
            tokens.append(current_token())
            return inputs

        async def predict(self, inputs: Any) -> Any:
            tokens.append(current_token())
            return inputs

    runner = serve(Model())
    with runner.accept() as call:
        call.admit()
        await call.predict(1, None)
        await call.complete()

    assert tokens == [call.token] * 2


async def test_chunks_are_counted_as_made_and_delivered(serve: Serve) -> None:
    class Model:
        async def predict(self, inputs: Any) -> AsyncIterator[int]:
            for step in range(5):
                await anyio.sleep(1)
                yield step

    runner = serve(Model())
    await ask(runner, request_id="whole")
    source = CancelSource()
    source.cancel_after(2.5)
    with pytest.raises(StreamCancelled):
        await ask(runner, request_id="cut", token=source.token)
    await runner.in_flight.wait_idle()

    whole, cut = runner.find("whole"), runner.find("cut")
    assert whole is not None
    assert cut is not None
    assert (whole.produced, whole.delivered, whole.phase) == (5, 5, "finished")
    assert (cut.produced, cut.delivered, cut.phase) == (2, 2, "cancelled")
    assert (cut.reason, cut.cancelled_in, cut.proof) == ("deadline", "decode", 6)
    assert runner.books.statistics().tokens == 7


async def test_an_error_of_the_model_frees_its_slot_and_is_raised_as_it_is(serve: Serve) -> None:
    class Model:
        async def predict(self, inputs: Any) -> AsyncIterator[int]:
            yield 1
            raise ZeroDivisionError("the model's own")

    runner = serve(Model())

    with pytest.raises(ZeroDivisionError, match="the model's own"):
        await ask(runner, request_id="r")

    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.reason, account.detail) == (
        "failed",
        Reason.ERROR,
        "ZeroDivisionError",
    )
    assert runner.slots.taken == 0
