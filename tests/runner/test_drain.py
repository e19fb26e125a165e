"""Drain: new requests are refused, others get a grace, what is left is cancelled and proved."""

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from streamkit._core import Phase, Reason, held, now
from streamkit.engines import FakeEngine
from streamkit.errors import RequestRefused
from streamkit.runner import EngineRunner

STEP = 0.02
Serve = Callable[..., Awaitable]


async def test_what_ends_within_the_grace_ends_by_itself(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, request_id="a", max_tokens=50))
        await anyio.sleep(STEP / 2)
        await runner.drain(5)
        assert now() == pytest.approx(50 * STEP)  # not a moment longer than it took

    assert runner.find("a").phase is Phase.FINISHED


async def test_what_is_left_after_the_grace_is_cancelled_and_proved(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, request_id="a", max_tokens=5000))
        await anyio.sleep(STEP / 2)
        await runner.drain(5)
        assert now() == pytest.approx(5 + STEP, abs=STEP)

    account = runner.find("a")
    assert (account.phase, account.reason) == (Phase.CANCELLED, Reason.DRAIN)
    assert held() == []


async def test_new_requests_are_refused_from_the_first_moment(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, request_id="a", max_tokens=50))
        await anyio.sleep(STEP / 2)
        tasks.start_soon(runner.drain, 5)
        await anyio.lowlevel.checkpoint()
        refused = (await serve(runner)).error

    assert isinstance(refused, RequestRefused)
    assert (refused.status, str(refused)) == (503, "not ready: the server is shutting down")
    assert runner.not_ready() == "the server is shutting down"


async def test_the_grace_can_be_cut(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, request_id="a", max_tokens=5000))
        tasks.start_soon(runner.drain, 1000)
        await anyio.sleep(1)
        runner.cut_grace()

    assert now() == pytest.approx(1, abs=2 * STEP)
    assert runner.find("a").reason is Reason.DRAIN


async def test_a_request_that_is_still_being_read_is_cancelled_too() -> None:
    runner = EngineRunner(FakeEngine())

    with runner.accept(request_id="a") as call:
        await runner.drain(1)
        assert call.token.cancelled

    assert runner.find("a").cancelled_in is Phase.READING


async def test_an_engine_that_ignores_aborts_cannot_hold_up_the_end(serve: Serve) -> None:
    engine = FakeEngine(lie="ignore_abort")
    runner = EngineRunner(engine)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, request_id="a", max_tokens=100_000))
        await anyio.sleep(STEP / 2)
        await runner.aclose()

    account = runner.find("a")
    assert now() < 5
    assert account.steps == ("again", "quarantine", "report")
    assert account.phase is Phase.CANCELLED  # an engine that was closed runs nothing


class Stuck(FakeEngine):
    """Closing it never ends."""

    async def aclose(self) -> None:
        await anyio.sleep_forever()


async def test_an_engine_that_cannot_be_closed_is_left_after_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await EngineRunner(Stuck()).aclose()

    assert now() == pytest.approx(30)
    assert "closing fake took longer than 30 s" in caplog.text


async def test_closing_twice_is_harmless() -> None:
    runner = EngineRunner(FakeEngine())

    await runner.aclose()
    await runner.aclose()

    assert repr(runner) == (
        "<EngineRunner fake: <InFlight 0 in flight, 0 ended> "
        "<Admission closed (the server is shutting down), 0 admitted, 8 slots>>"
    )
