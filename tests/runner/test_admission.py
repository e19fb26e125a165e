"""What waits is bounded, and who is refused is told at once when to come back."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import pytest

from streamkit._core import Phase
from streamkit.engines import FakeEngine, GenerationRequest
from streamkit.errors import RequestRefused, StreamCancelled
from streamkit.runner import EngineRunner

STEP = 0.02
Serve = Callable[..., Awaitable]


async def test_no_more_are_admitted_than_run_and_wait(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(slots=2), max_queued=1)
    served = []

    async def one() -> None:
        served.append(await serve(runner, max_tokens=10))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(one)

    refused = [each.error for each in served if each.error]
    assert len(refused) == 2
    assert isinstance(refused[0], RequestRefused)
    assert refused[0].status == 429
    assert refused[0].retry_after >= 1
    assert "3 requests in flight, 2 slots and 1 places to wait" in str(refused[0])
    assert [each.ended_at for each in served if each.error] == [0.0, 0.0]
    assert runner.statistics().refused == {"full": 2}
    assert runner.statistics().finished == 3


async def test_places_come_back_when_the_engine_stopped(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(slots=1), max_queued=0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, request_id="cut", max_tokens=100))
        await anyio.sleep(1.5 * STEP)
        runner.cancel("cut")
        assert (await serve(runner)).error is not None  # cut, and not yet proved
        await runner.in_flight.wait_idle()
        assert (await serve(runner, max_tokens=1)).error is None


async def test_retry_after_grows_with_how_long_requests_take(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(slots=1, step_ms=1000), max_queued=0)
    for _ in range(20):
        await serve(runner, max_tokens=20)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, max_tokens=20))
        await anyio.sleep(1)
        refused = (await serve(runner)).error

    assert 15 <= refused.retry_after <= 20


async def test_a_quarantined_slot_is_one_less(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(slots=2, lie="ignore_abort"), max_queued=0)

    async def cut(name: str) -> None:
        with suppress(StreamCancelled), runner.accept(request_id=name) as call:
            call.admit(GenerationRequest(prompt="w", max_tokens=300))
            async for _ in call.stream():
                runner.cancel(name)
        await runner.in_flight.wait_idle()

    await cut("a")
    assert runner.find("a").phase is Phase.QUARANTINED
    assert runner.not_ready() is None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, max_tokens=2))
        await anyio.sleep(STEP)
        assert "1 slots" in str((await serve(runner)).error)
    await cut("b")
    assert runner.not_ready() == "all slots of engine fake are quarantined"
    refused = (await serve(runner)).error
    assert refused.status == 503

    await anyio.sleep(10)
    assert runner.not_ready() is None
    assert (await serve(runner, max_tokens=1)).error is None


async def test_what_the_engine_could_never_serve_is_refused_without_taking_a_place(
    serve: Serve,
) -> None:
    runner = EngineRunner(FakeEngine(slots=1, kv_tokens=100), max_queued=0)

    served = await serve(runner, max_tokens=1000)

    assert isinstance(served.error, ValueError)
    assert runner.statistics().refused == {"invalid": 1}
    assert (await serve(runner, max_tokens=1)).error is None


async def test_an_engine_that_has_no_room_in_its_own_queue_refuses(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(slots=1, max_queued=1), max_queued=100)
    served = []

    async def one() -> None:
        served.append(await serve(runner, max_tokens=5))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(one)
            await anyio.sleep(STEP / 4)
    await runner.in_flight.wait_idle()

    assert [type(each.error) for each in served if each.error] == [RequestRefused] * 2
    totals = runner.statistics()
    assert (totals.finished, totals.failed, totals.violations) == (2, 2, 0)


@pytest.mark.parametrize("max_queued", [-1])
def test_a_bound_below_zero_is_an_error(max_queued: int) -> None:
    with pytest.raises(ValueError, match="max_queued must be 0 or more, got -1"):
        EngineRunner(FakeEngine(), max_queued=max_queued)


@pytest.mark.parametrize("seconds", [0, -1.0])
def test_a_timeout_that_is_no_time_is_an_error(seconds: float) -> None:
    with pytest.raises(ValueError, match="request_timeout must be above 0 s"):
        EngineRunner(FakeEngine(), request_timeout=seconds)
