"""Whoever cuts a request short, and whenever: its work stops, and who is left is told why."""

import json
import logging

import anyio
import pytest
from sse_starlette import EventSourceResponse
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse

from streamkit import current_token
from streamkit.asgi import ByteStream, EventStream
from streamkit.testing import Exchange
from streamkit.testing._clock import virtual_loop

MINE = {"x-request-id": "r"}
EVENTS = "text/event-stream"


def pause(seconds: float) -> bool:
    """What sync code that looks at its token does between two steps, on the test's clock."""
    return anyio.from_thread.run(_pause, seconds)


async def _pause(seconds: float) -> bool:
    loop = virtual_loop()
    loop.thread_parked()  # it waits for us: time may pass
    with anyio.move_on_after(seconds):
        await current_token().wait()
    loop.thread_started()
    return current_token().cancelled


class Logged:
    def __init__(self) -> None:
        self.log: list[str] = []


class Stages(Logged):
    """Ten seconds each."""

    async def preprocess(self, inputs):
        return await self.work("preprocess", inputs)

    async def predict(self, inputs):
        return await self.work("predict", inputs)

    async def postprocess(self, inputs):
        return await self.work("postprocess", inputs)

    async def work(self, stage: str, inputs: object) -> object:
        try:
            await anyio.sleep(10 if inputs == "slow" else 0)
        except BaseException:
            self.log.append(stage)
            raise
        return inputs


class SyncStages(Stages):
    def preprocess(self, inputs):
        return self.work("preprocess", inputs)

    def predict(self, inputs):
        return self.work("predict", inputs)

    def postprocess(self, inputs):
        return self.work("postprocess", inputs)

    def work(self, stage: str, inputs: object) -> object:
        if inputs == "slow" and pause(10):
            self.log.append(stage)
        return inputs


async def settled(app, ask, **expected: object) -> None:
    """The books are closed, the slot is back, and the next is served at once."""
    await app.runner.in_flight.wait_idle()
    account = app.runner.find("r")
    assert {name: getattr(account, name) for name in expected} == expected
    assert app.runner.slots.taken == app.runner.slots.waiting == 0
    assert app.runner.statistics().violations == 0
    began = anyio.current_time()
    assert (await ask(app, "quick").run()).status == 200
    assert anyio.current_time() == began


# -- a client that leaves ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Stages, SyncStages])
@pytest.mark.parametrize(
    ("seconds", "stage", "phase"),
    [
        (5, "preprocess", "preprocess"),
        (15, "predict", "prefill"),
        (25, "postprocess", "postprocess"),
    ],
)
async def test_a_client_that_leaves_ends_the_stage_that_runs(
    serve, ask, kind, seconds, stage, phase
) -> None:
    app = serve(kind)

    exchange = await ask(app, "slow", headers=MINE, leaves_after_seconds=seconds).run()

    assert exchange.ended_at == pytest.approx(seconds)
    await settled(app, ask, reason="client_disconnect", cancelled_in=phase, told_after=0.0)
    assert app.service.model.log == [stage]


async def test_a_client_that_leaves_while_it_waits_for_a_slot_is_out_of_the_queue(
    serve, ask
) -> None:
    app = serve(Stages)

    async with ask(app, "slow") as first:
        await anyio.sleep(15)
        left = await ask(app, "quick", headers=MINE, leaves_after_seconds=1).run()
        assert app.runner.slots.waiting == 0

    assert left.ended_at == pytest.approx(16)
    assert first.ended_at == pytest.approx(30)
    await settled(app, ask, cancelled_in="queued")


class Streams(Logged):
    async def predict(self, inputs):
        async for chunk in self.stream(inputs):
            yield chunk

    async def stream(self, inputs: object):
        try:
            for number in range(5):
                yield f"{number}"
                await anyio.sleep(1 if inputs == "slow" else 0)
        finally:
            self.log.append("closed")


class SyncStreams(Streams):
    def predict(self, inputs):
        return self.stream(inputs)

    def stream(self, inputs: object):
        try:
            for number in range(5):
                yield f"{number}"
                pause(1 if inputs == "slow" else 0)
        finally:
            self.log.append("closed")


class Answers(Streams):
    async def predict(self, inputs):
        return StreamingResponse(self.stream(inputs))


class SyncAnswers(SyncStreams):
    """Starlette would never close the generator, and ask each chunk of another thread."""

    def predict(self, inputs):
        return StreamingResponse(self.stream(inputs))


class OurAnswers(Streams):
    async def predict(self, inputs):
        return ByteStream(self.stream(inputs))


class OurEvents(Streams):
    async def predict(self, inputs):
        return EventStream(self.stream(inputs))


class TheirEvents(Streams):
    async def predict(self, inputs):
        return EventSourceResponse(self.stream(inputs), ping=1000)


class Subclass(StreamingResponse):
    async def stream_response(self, send) -> None:
        await super().stream_response(send)


class TheirAnswers(SyncStreams):
    def predict(self, inputs):
        return Subclass(self.stream(inputs))


ALL = [Streams, SyncStreams, Answers, SyncAnswers, OurAnswers, OurEvents, TheirEvents, TheirAnswers]


@pytest.mark.parametrize("kind", ALL)
async def test_a_client_that_leaves_between_two_chunks_ends_the_stream(serve, ask, kind) -> None:
    app = serve(kind)

    exchange = await ask(app, "slow", headers=MINE, leaves_after_seconds=2.5).run()

    assert exchange.ended_at == pytest.approx(2.5)
    await app.runner.in_flight.wait_idle()
    assert app.service.model.log == ["closed"]
    await settled(app, ask, reason="client_disconnect", cancelled_in="decode", told_after=0.0)


@pytest.mark.parametrize("kind", ALL)
async def test_a_client_that_stops_reading_is_cut_off_after_a_while(serve, ask, kind) -> None:
    app = serve(kind, write_stall=3.0)

    await ask(app, "slow", headers=MINE, stops_reading_after_chunks=2).run()

    await app.runner.in_flight.wait_idle()
    assert app.service.model.log == ["closed"]
    await settled(app, ask, reason="write_stalled", cancelled_in="sending")


@pytest.mark.parametrize("kind", ALL)
async def test_the_slot_of_a_stream_is_back_when_the_stream_has_ended(serve, ask, kind) -> None:
    app = serve(kind)

    async with ask(app, "slow") as first:
        await anyio.sleep(0.5)
        second = await ask(app, "quick").run()

    assert first.completed
    assert second.started_at == pytest.approx(0.5)
    assert second.ended_at == first.ended_at == pytest.approx(5)
    assert app.service.model.log == ["closed", "closed"]


async def test_a_joined_stream_is_cut_as_any_other(serve, ask) -> None:
    app = serve(Streams)

    await ask(app, "slow", headers=MINE, accept="application/json", leaves_after_seconds=2.5).run()

    await app.runner.in_flight.wait_idle()
    assert app.service.model.log == ["closed"]
    await settled(app, ask, reason="client_disconnect")


async def test_a_stream_that_is_silent_for_too_long_is_stopped(serve, ask) -> None:
    app = serve(Streams, stream_read_timeout=0.5, heartbeat="off")

    exchange = await ask(app, "slow", headers=MINE, accept=EVENTS).run()

    assert exchange.ended_at == pytest.approx(0.5)
    error = exchange.events[-1].json()["error"]
    assert (error["type"], error["reason"]) == ("cancelled", "deadline")
    assert app.service.model.log == ["closed"]
    await settled(app, ask, reason="deadline")


async def test_a_background_task_runs_also_when_the_client_has_left(serve, ask) -> None:
    ran = []

    class Cleans(Streams):
        async def predict(self, inputs):
            task = BackgroundTask(lambda: ran.append(inputs))
            if inputs == "quick":
                return PlainTextResponse("x")
            return StreamingResponse(self.stream(inputs), background=task)

    app = serve(Cleans)

    await ask(app, "slow", headers=MINE, leaves_after_seconds=2.5).run()

    assert ran == ["slow"]
    await settled(app, ask, reason="client_disconnect")


@pytest.mark.parametrize("leaves_after_seconds", [None, 2.5])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_background_task_is_outside_the_slot(
    serve, ask, stream, leaves_after_seconds
) -> None:
    class Reports(Streams):
        async def predict(self, inputs):
            slow = BackgroundTask(anyio.sleep, 60)
            if inputs == "quick":
                return "next"
            if stream:
                return StreamingResponse(self.stream(inputs), background=slow)
            return PlainTextResponse("x", background=slow)

    app = serve(Reports)

    async with ask(app, "slow", leaves_after_seconds=leaves_after_seconds) as exchange:
        following = await ask(app, "quick").run()
        assert exchange.outcome == "running"
    assert following.data == b'"next"'
    assert following.ended_at < 60


class Slowly(PlainTextResponse):
    """A response that takes its time, in its own way."""

    async def __call__(self, scope, receive, send) -> None:
        await anyio.sleep(10)
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize("way", ["leave", "cancel"])
async def test_a_response_of_any_kind_is_cut_and_its_background_task_runs(serve, ask, way) -> None:
    ran = []

    class Takes:
        async def predict(self, inputs):
            task = BackgroundTask(lambda: ran.append(inputs))
            return (PlainTextResponse if inputs == "quick" else Slowly)("x", background=task)

    app = serve(Takes)

    async with ask(app, "slow", headers=MINE) as exchange:
        await anyio.sleep(1)
        exchange.leave() if way == "leave" else app.runner.cancel("r")

    assert exchange.ended_at == pytest.approx(1)
    assert ran == ["slow"]
    await settled(app, ask, phase="cancelled")


@pytest.mark.parametrize(
    "answer", [lambda: "value", lambda: PlainTextResponse("x")], ids=["value", "response"]
)
async def test_an_answer_that_nobody_reads_is_given_up_after_a_while(serve, ask, answer) -> None:
    class Gives:
        async def predict(self, inputs):
            return answer()

    app = serve(Gives, write_stall=3.0)

    await ask(app, "slow", headers=MINE, stops_reading_after_chunks=0).run()

    await settled(app, ask, reason="write_stalled", cancelled_in="sending", delivered=0)


async def test_a_model_that_fails_at_its_cleanup_is_reported_and_no_failure(
    serve, ask, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails:
        async def predict(self, inputs):
            try:
                await anyio.sleep(10 if inputs == "slow" else 0)
            finally:
                if inputs == "slow":
                    raise RuntimeError("at its cleanup")

    app = serve(Fails)

    await ask(app, "slow", headers=MINE, leaves_after_seconds=1).run()

    await settled(app, ask, reason="client_disconnect", phase="cancelled")
    assert "the model failed after it was told to stop" in caplog.text
    assert "at its cleanup" in caplog.text


async def test_the_log_and_the_metrics_say_499(serve, ask, caplog) -> None:
    caplog.set_level(logging.INFO, "streamkit.access")
    app = serve(Streams)

    await ask(app, "slow", headers=MINE, leaves_after_seconds=2.5).run()
    await app.runner.in_flight.wait_idle()

    assert "id=r method=POST path=/v1/models/model:predict status=499" in caplog.text
    metrics = (await Exchange(app, method="GET", path="/metrics").run()).text
    line = next(line for line in metrics.splitlines() if 'status="499"' in line)
    assert 'route="/v1/models/{model_name}:predict"' in line


# -- anybody else ------------------------------------------------------------------------------


def said(exchange: Exchange) -> tuple[int | None, str]:
    headers = exchange.headers_received
    assert headers["x-baseten-error-source"] == "04"
    assert headers["x-baseten-error-code"] == "600"
    return exchange.status, json.loads(exchange.data)["error"]


async def test_an_explicit_cancel_before_the_first_byte_is_499(serve, ask) -> None:
    app = serve(Stages)

    async with ask(app, "slow", headers=MINE) as exchange:
        await anyio.sleep(15)
        cancelled = await ask(app, path="/v1/requests/r/cancel").run()

    assert json.loads(cancelled.data) == {"id": "r", "outcome": "cancelled"}
    assert said(exchange) == (499, "the request was cancelled")
    await settled(app, ask, reason="requested", cancelled_in="prefill")


async def test_a_deadline_before_the_first_byte_is_504(serve, ask) -> None:
    app = serve(Stages, request_timeout=15)

    exchange = await ask(app, "slow", headers=MINE).run()

    assert said(exchange) == (504, "the request did not finish before its deadline")
    await settled(app, ask, reason="deadline", cancelled_in="prefill")


async def test_a_drain_before_the_first_byte_is_503(serve, ask) -> None:
    app = serve(Stages)

    async with ask(app, "slow", headers=MINE) as exchange:
        await anyio.sleep(15)
        await app.runner.drain(0)

    assert said(exchange) == (503, "the server is shutting down; try again")
    assert exchange.headers_received["retry-after"] == "1"


@pytest.mark.parametrize("kind", [Streams, SyncStreams, Answers, SyncAnswers, OurAnswers])
async def test_an_explicit_cancel_cuts_a_raw_stream(serve, ask, kind) -> None:
    app = serve(kind)

    async with ask(app, "slow", headers=MINE) as exchange:
        await exchange.wait_chunks(2)
        app.runner.cancel("r")

    assert (exchange.status, exchange.completed) == (200, False)
    await app.runner.in_flight.wait_idle()
    assert app.service.model.log == ["closed"]
    await settled(app, ask, reason="requested")


@pytest.mark.parametrize("kind", [Streams, SyncStreams, OurEvents])
async def test_an_explicit_cancel_is_the_last_event_of_an_event_stream(serve, ask, kind) -> None:
    app = serve(kind)

    async with ask(app, "slow", headers=MINE, accept=EVENTS) as exchange:
        await exchange.wait_chunks(2)
        app.runner.cancel("r")

    assert exchange.completed
    assert exchange.events[-1].json()["error"]["reason"] == "requested"
    await settled(app, ask, reason="requested")


async def test_a_server_that_cancels_the_task_is_a_drain(serve, ask) -> None:
    app = serve(Stages)

    async with ask(app, "slow", headers=MINE) as exchange:
        await anyio.sleep(15)
        exchange.cancel()

    await settled(app, ask, reason="drain", cancelled_in="prefill")
