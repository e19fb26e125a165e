"""Requests are found, listed and cancelled by id, in flight and for a while afterwards."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import pytest

from streamkit._core import Phase, Reason
from streamkit.engines import FakeEngine, GenerationRequest
from streamkit.errors import StreamCancelled
from streamkit.runner import CancelOutcome, EngineRunner

STEP = 0.02
Serve = Callable[..., Awaitable]


@pytest.mark.parametrize(
    "proposed",
    [
        pytest.param("", id="empty"),
        pytest.param("a b", id="space"),
        pytest.param("a/b", id="slash"),
        pytest.param("a\nb", id="newline"),
        pytest.param("a\n", id="trailing newline"),
        pytest.param("-a", id="begins like an option"),
        pytest.param("é", id="not ASCII"),
        pytest.param("a" * 129, id="too long"),
        pytest.param(None, id="none"),
    ],
)
async def test_an_id_that_is_not_valid_is_replaced(proposed: str | None) -> None:
    runner = EngineRunner(FakeEngine())

    with runner.accept(request_id=proposed) as call:
        assert call.id != proposed
        assert len(call.id) == 32


@pytest.mark.parametrize("proposed", ["a", "a" * 128, "chat-1.2:3_4", "0"])
async def test_a_valid_id_is_kept(proposed: str) -> None:
    runner = EngineRunner(FakeEngine())

    with runner.accept(request_id=proposed) as call:
        assert call.id == proposed


async def test_an_id_that_is_in_flight_is_not_given_twice(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine())

    with runner.accept(request_id="mine") as first, runner.accept(request_id="mine") as second:
        assert first.id == "mine"
        assert second.id != "mine"
    with runner.accept(request_id="mine") as third:
        assert third.id == "mine"


async def test_an_id_stays_taken_until_the_engine_has_let_go_of_it(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(lie="ignore_abort"))

    with suppress(StreamCancelled), runner.accept(request_id="mine") as call:
        call.admit(GenerationRequest(prompt="w", max_tokens=300))
        async for _ in call.stream():
            runner.cancel("mine")
    await runner.in_flight.wait_idle()
    assert runner.find("mine").phase is Phase.QUARANTINED

    assert (await serve(runner, request_id="mine", max_tokens=1)).id != "mine"
    await anyio.sleep(10)
    assert (await serve(runner, request_id="mine", max_tokens=1)).id == "mine"


async def test_an_explicit_cancel_says_whether_it_was_in_time(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, request_id="a", max_tokens=100))
        await anyio.sleep(2.5 * STEP)
        assert runner.cancel("a", "asked for") is CancelOutcome.CANCELLED
        assert runner.cancel("a") is CancelOutcome.ALREADY_FINISHED
    await runner.in_flight.wait_idle()

    assert runner.cancel("a") is CancelOutcome.ALREADY_FINISHED
    assert runner.cancel("nobody") is None
    account = runner.find("a")
    assert (account.reason, account.detail) == (Reason.REQUESTED, "asked for")


async def test_requests_are_listed_oldest_first_and_ended_ones_newest_first(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine())
    for name in "abc":
        await serve(runner, request_id=name, max_tokens=1)

    with runner.accept(request_id="d"), runner.accept(request_id="e"):
        assert [account.id for account in runner.in_flight.running()] == ["d", "e"]
        assert [account.id for account in runner.in_flight.ended(2)] == ["c", "b"]


async def test_only_so_many_ended_requests_are_remembered(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(), remembered=2)
    for name in "abca":
        await serve(runner, request_id=name, max_tokens=1)

    assert [account.id for account in runner.in_flight.ended(10)] == ["a", "c"]
    assert runner.find("b") is None


async def test_a_refused_request_leaves_no_trace_but_a_count() -> None:
    runner = EngineRunner(FakeEngine())
    told = []

    with runner.accept(request_id="bad", on_closed=told.append):
        pass  # it was wrong, and has been answered so

    assert runner.find("bad") is None
    assert runner.statistics().refused == {"invalid": 1}
    assert (runner.statistics().received, runner.statistics().started) == (1, 0)
    assert [account.id for account in told] == ["bad"]
