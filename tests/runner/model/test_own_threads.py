"""Threads that a model's own code starts in a request are work of that request."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from streamkit._core import CancelSource, Reason, now
from streamkit.engines import Proof
from streamkit.errors import StreamCancelled
from streamkit.runner._model import ModelRunner, Stream
from streamkit.runner._model._starting import notice_threads
from streamkit.runner._model._tenure import LOST_AFTER
from tests.server.model.models import own_threads

from .conftest import Serve, ask

pytestmark = pytest.mark.asyncio_only

STREAMS = [
    own_threads.Streams,
    own_threads.StreamsFromASubclass,
    own_threads.StreamsFromAPool,
]
LIMIT = 10.0  # real seconds; each of these takes a fraction of one


@pytest.fixture(autouse=True)
def _noticed() -> None:
    notice_threads(Path(own_threads.__file__).parent)


@pytest.fixture
def made() -> Iterator[list[own_threads.Engine]]:
    """The engines of a test; what still runs of them ends with it."""
    engines: list[own_threads.Engine] = []
    yield engines
    for engine in engines:
        engine.let_go.set()
        assert engine.ended.wait(LIMIT)


async def leave_after_a_token(runner: ModelRunner) -> None:
    """Read one chunk, then leave; returns when the answer has ended for whoever asked."""
    source = CancelSource()
    with pytest.raises(StreamCancelled):
        await _read(runner, source)


async def _read(runner: ModelRunner, source: CancelSource) -> None:
    with runner.accept(token=source.token, request_id="r") as call:
        call.admit()
        result = await call.predict("prompt", None)
        assert isinstance(result, Stream)
        async for _ in result.items:
            source.cancel(Reason.CLIENT_DISCONNECT)


async def leave_after(runner: ModelRunner, seconds: float, inputs: object = None) -> None:
    source = CancelSource()
    async with anyio.create_task_group() as tasks:

        async def leave() -> None:
            await anyio.sleep(seconds)
            source.cancel(Reason.CLIENT_DISCONNECT)

        tasks.start_soon(leave)
        with pytest.raises(StreamCancelled):
            await ask(runner, inputs, token=source.token, request_id="r")


class _Tells(logging.Filter):
    """Of the report that a thread runs on."""

    def __init__(self, told: anyio.Event) -> None:
        super().__init__()
        self._told = told

    def filter(self, record: logging.LogRecord) -> bool:
        if "runs on after its request was cut short" in record.getMessage():
            self._told.set()
        return True


@pytest.mark.realtime
@pytest.mark.parametrize("kind", STREAMS)
async def test_the_slot_is_back_when_the_models_own_thread_has_ended(
    serve: Serve,
    made: list[own_threads.Engine],
    kind: type[own_threads.Streams],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made.append(engine := kind())
    runner = serve(engine)
    told = anyio.Event()
    monkeypatch.setattr(logging.getLogger("streamkit.runner"), "filters", [_Tells(told)])

    await leave_after_a_token(runner)
    with anyio.fail_after(LIMIT):
        await told.wait()
    assert re.search(r"started at \S+/own_threads.py:\d+, now at ", caplog.text)
    assert re.search(r"in \S+, runs on after", caplog.text)
    assert runner.slots.taken == 1

    engine.let_go.set()
    with anyio.fail_after(LIMIT):
        await runner.in_flight.wait_idle()
    account = runner.find("r")
    assert account is not None
    assert (account.phase, account.proof) == ("cancelled", Proof.JOINED)
    assert runner.slots.taken == 0
    assert engine.ended.is_set()


@pytest.mark.realtime
@pytest.mark.parametrize("kind", STREAMS)
async def test_the_models_own_thread_is_interrupted_where_that_was_asked_for(
    serve: Serve, made: list[own_threads.Engine], kind: type[own_threads.Streams]
) -> None:
    made.append(engine := kind())
    runner = serve(engine, interrupt_threads=True)

    await leave_after_a_token(runner)
    with anyio.fail_after(LIMIT):
        await runner.in_flight.wait_idle()

    assert engine.ended.is_set()
    assert runner.slots.taken == 0


@pytest.mark.realtime
async def test_the_models_own_thread_can_ask_whether_to_stop(
    serve: Serve, made: list[own_threads.Engine], caplog: pytest.LogCaptureFixture
) -> None:
    made.append(engine := own_threads.Streams())
    engine.asks = True
    runner = serve(engine)

    await leave_after_a_token(runner)
    with anyio.fail_after(LIMIT):
        await runner.in_flight.wait_idle()

    assert engine.ended.is_set()
    account = runner.find("r")
    assert account is not None
    assert account.proof is Proof.JOINED
    assert caplog.text == ""


@pytest.mark.realtime
async def test_a_request_that_broke_keeps_its_slot_until_its_own_thread_has_ended(
    serve: Serve, made: list[own_threads.Engine]
) -> None:
    made.append(engine := own_threads.Breaks())
    runner = serve(engine)

    with pytest.raises(ZeroDivisionError):
        await ask(runner)
    assert runner.slots.taken == 1
    engine.let_go.set()
    with anyio.fail_after(LIMIT):
        await runner.in_flight.wait_idle()

    assert runner.slots.taken == 0


async def test_a_thread_that_runs_on_is_reported_once(
    serve: Serve, made: list[own_threads.Engine], caplog: pytest.LogCaptureFixture
) -> None:
    made.append(engine := own_threads.Breaks())
    runner = serve(engine)

    with pytest.raises(ZeroDivisionError):
        await ask(runner)
    await runner.in_flight.wait_idle()  # given up

    assert not engine.ended.is_set()
    assert caplog.text.count("runs on after its request was cut short") == 1


async def test_a_thread_that_goes_on_after_a_whole_answer_keeps_nobody_waiting(
    serve: Serve, made: list[own_threads.Engine]
) -> None:
    made.append(engine := own_threads.Serves())
    runner = serve(engine)

    assert await ask(runner, 0.0) == "done"

    assert not engine.ended.is_set()
    assert runner.slots.taken == 0
    assert len(runner.in_flight) == 0


async def test_a_thread_that_lasts_costs_a_slot_for_a_while_and_only_once(
    serve: Serve, made: list[own_threads.Engine], caplog: pytest.LogCaptureFixture
) -> None:
    made.append(engine := own_threads.Serves())
    runner = serve(engine)

    await leave_after(runner, 1.0, inputs=5.0)
    await anyio.sleep(LOST_AFTER)
    assert runner.slots.taken == 1
    await anyio.sleep(10)
    assert runner.slots.taken == 0
    assert "waited for no longer: its slot is free" in caplog.text

    engine.started = 0  # its like is known by now
    before = now()
    await leave_after(runner, 1.0, inputs=5.0)
    await runner.in_flight.wait_idle()
    assert (now() - before, runner.slots.taken) == (1.0, 0)


@pytest.mark.realtime
async def test_what_a_library_starts_for_itself_is_not_looked_at(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Model:  # this file is below no root
        def predict(self, inputs: object) -> Iterator[str]:
            return engine.predict(inputs)

    class Hidden(own_threads.Engine):
        def predict(self, inputs: object) -> Iterator[str]:
            import threading  # noqa: PLC0415

            threading.Thread(target=self.generate, args=(lambda _: None,)).start()
            while True:
                yield "chunk"

    engine = Hidden()
    runner = serve(Model())
    caplog.set_level(logging.WARNING)

    await leave_after_a_token(runner)
    with anyio.fail_after(LIMIT):
        await runner.in_flight.wait_idle()
    still_runs = not engine.ended.is_set()
    engine.let_go.set()
    assert engine.ended.wait(LIMIT)

    assert still_runs
    assert runner.slots.taken == 0
