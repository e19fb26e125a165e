"""Shutdown: told by the signal, graced, cancelled with reason drain, proved; never the client's."""

import asyncio
import contextlib
import os
import signal
import time

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from streamkit._core import Reason, current_token, held
from streamkit.asgi import CancellationMiddleware
from streamkit.streams import cancellable
from streamkit.testing import Exchange, Lifespan, VirtualTimeLoop


@pytest.fixture
def log() -> list[object]:
    return []


@pytest.fixture(autouse=True)
def previous_handler(log: list[object]):
    """The handler that a server had installed before."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in kept:
        signal.signal(number, lambda number, _: log.append(signal.Signals(number).name))
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def app_of(log: list[object], *, slow_abort: float = 0.0, **options) -> CancellationMiddleware:
    async def abort(cancellation) -> None:
        log.append(cancellation.reason)
        await anyio.sleep(slow_abort)
        log.append("aborted")

    @cancellable(on_cancel=abort)
    async def generate():
        for number in range(1000):
            await anyio.sleep(1)
            yield f"{number} "

    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(generate())

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    return CancellationMiddleware(app, **options)


async def test_sigterm_gives_a_grace_then_cancels_with_reason_drain(log):
    app = app_of(log, drain_grace=5)
    async with Lifespan(app), Exchange(app) as exchange:
        await exchange.wait_chunks(1)
        begun = anyio.current_time()
        os.kill(os.getpid(), signal.SIGTERM)
        await exchange.wait_ended()

        assert log[:2] == ["SIGTERM", Reason.DRAIN]
        assert anyio.current_time() == pytest.approx(begun + 5)
        assert not exchange.completed


async def test_a_request_that_ends_within_the_grace_is_not_cancelled(log):
    app = app_of(log, drain_grace=5000)
    async with Lifespan(app), Exchange(app) as exchange:
        await exchange.wait_chunks(1)
        os.kill(os.getpid(), signal.SIGTERM)
        await exchange.wait_ended()

    assert log == ["SIGTERM"]
    assert exchange.completed


async def test_at_the_end_of_the_lifespan_all_are_cancelled_and_aborts_are_awaited(log):
    app = app_of(log, slow_abort=3)
    async with Exchange(app) as exchange:
        async with Lifespan(app):
            await exchange.wait_chunks(1)
        assert log == [Reason.DRAIN, "aborted"]

    assert held() == []


async def test_an_abort_that_hangs_holds_the_shutdown_up_for_a_bounded_time(log, caplog):
    app = app_of(log, slow_abort=10_000)
    async with Exchange(app) as exchange:
        async with Lifespan(app):
            await exchange.wait_chunks(1)
            begun = anyio.current_time()
        assert anyio.current_time() <= begun + 10.1

    assert "at shutdown" in caplog.text or "was given up" in caplog.text


async def test_the_servers_own_handler_is_back_afterwards(log):
    before = signal.getsignal(signal.SIGTERM)
    async with Lifespan(app_of(log)):
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before


async def test_without_a_grace_the_signals_are_left_alone(log):
    before = signal.getsignal(signal.SIGTERM)
    async with Lifespan(app_of(log, drain_grace=None)):
        assert signal.getsignal(signal.SIGTERM) is before


async def test_an_app_without_a_lifespan_still_gets_the_end_of_ours(log):
    async def app(scope, receive, send) -> None:
        assert scope["type"] == "http"
        await StreamingResponse(iter(()))(scope, receive, send)

    middleware = CancellationMiddleware(app)
    async with Lifespan(middleware):
        pass

    assert middleware.drain.started


async def test_a_loop_that_is_blocked_is_measured_and_reported(log, caplog):
    app = app_of(log)

    async with Exchange(app) as exchange:
        await exchange.wait_chunks(1)
        assert app.sweeper.blocked_for == 0
        exchange.leave()


def test_an_app_that_outlives_its_loop_is_looked_after_in_the_next_one():
    reasons = []

    async def app(scope, receive, send) -> None:
        token = current_token()
        token.add_listener(lambda cancellation: reasons.append(cancellation.reason))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not token.cancelled:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def stall() -> None:
        exchange = Exchange(middleware, stops_reading_after_chunks=1, leaves_after_seconds=60)
        with contextlib.suppress(Exception):
            await exchange.run()

    middleware = CancellationMiddleware(app)
    for _ in range(2):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(stall())

    assert reasons == [Reason.WRITE_STALLED, Reason.WRITE_STALLED]


@pytest.mark.realtime
@pytest.mark.blocks_the_loop
@pytest.mark.parametrize("goes_on", [True, False])
async def test_user_code_that_blocks_the_loop_is_measured_and_reported(log, caplog, goes_on):
    async def app(scope, receive, send) -> None:
        await anyio.sleep(0.1)
        time.sleep(1.0)  # noqa: ASYNC251, TID251 - it is the point
        if goes_on:
            await anyio.lowlevel.checkpoint()
        await Response()(scope, receive, send)

    middleware = CancellationMiddleware(app)
    await Exchange(middleware).run()

    assert middleware.sweeper.blocked_for >= 0.4
    assert "the event loop was blocked for" in caplog.text
