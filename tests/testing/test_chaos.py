"""Interrupting a scenario at every point: all points are visited, and what they break is told."""

import asyncio
import contextlib
import threading

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from streamkit.testing import (
    DeadlockError,
    Exchange,
    VirtualTimeLoop,
    every_cancel_point,
    every_moment,
)
from streamkit.testing._connection import Message, Receive, Send


class Books:
    """Slots that must be given back."""

    def __init__(self) -> None:
        self.held = 0
        self.runs = 0
        self.survived = 0

    def check(self) -> None:
        assert self.held == 0, f"{self.held} slots were not given back"

    async def check_later(self) -> None:
        await anyio.sleep(1)
        self.check()


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.mark.parametrize("how", ["scope", "task"])
@pytest.mark.parametrize("later", [False, True])
async def test_a_scenario_is_cancelled_at_each_of_its_suspensions(
    books: Books, how: str, later: bool
):
    steps: list[int] = []

    async def scenario() -> None:
        books.runs += 1
        books.held += 1
        try:
            for number in range(3):
                steps.append(number)
                await anyio.sleep(1)
            await anyio.lowlevel.checkpoint()
        finally:
            books.held -= 1
        books.survived += 1

    check = books.check_later if later else books.check
    report = await every_cancel_point(scenario, check=check, how=how)

    assert (report.runs, books.runs, books.survived) == (5, 5, 1)
    assert steps == [0, 0, 1, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert len(report.places) == 4
    assert "scenario" in report.places[0]
    assert "test_chaos.py" in report.places[0]


async def test_a_cleanup_without_a_shield_is_found(books: Books):
    async def scenario() -> None:
        books.held += 1
        try:
            await anyio.sleep(1)
        finally:
            await anyio.sleep(1)
            books.held -= 1

    with pytest.raises(AssertionError, match="1 slots were not given back") as caught:
        await every_cancel_point(scenario, check=books.check)

    assert caught.value.__notes__[0].startswith(
        "in the run that was cancelled at suspension 1 (scope): "
    )


async def test_a_failing_check_fails_the_run_whether_it_is_async_or_not():
    async def later() -> None:
        await anyio.sleep(1)
        raise LookupError

    def at_once() -> None:
        raise LookupError

    for check in (later, at_once):
        for chaos in (
            every_cancel_point(lambda: anyio.sleep(1), check=check),
            every_moment(lambda: anyio.sleep(1), int, check=check),
        ):
            with pytest.raises(LookupError) as caught:
                await chaos
            assert caught.value.__notes__[0].startswith("in the run that was ")


async def test_edge_and_level_cancel_find_different_faults(books: Books):
    """An unshielded cleanup survives the first Task.cancel(), and not the second point."""
    reached: list[str] = []

    async def scenario() -> None:
        try:
            await anyio.sleep(1)
        finally:
            reached.append("cleanup")
            await anyio.sleep(1)
            reached.append("done")

    await every_cancel_point(scenario, how="task")

    assert reached == ["cleanup", "done", "cleanup", "cleanup", "done"]


async def test_tasks_of_the_scenario_are_cancelled_with_it(books: Books):
    async def hold() -> None:
        books.held += 1
        try:
            await anyio.sleep(5)
        finally:
            books.held -= 1

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            tasks.start_soon(hold)
            await anyio.sleep(1)

    report = await every_cancel_point(scenario, check=books.check)

    assert report.runs > 2


async def test_a_cancel_reaches_through_generators():
    closed: list[str] = []

    async def numbers():
        try:
            yield 1
            await anyio.sleep(1)
            yield 2
        finally:
            closed.append("closed")

    async def scenario() -> None:
        async with contextlib.aclosing(numbers()) as stream:
            async for _ in stream:
                await anyio.sleep(1)

    report = await every_cancel_point(scenario)

    assert report.runs == 4
    assert len(closed) == 4


async def test_an_error_of_the_scenario_comes_out_with_the_point():
    async def scenario() -> None:
        try:
            await anyio.sleep(1)
        except asyncio.CancelledError:
            raise LookupError("broken by the cancel") from None

    with pytest.raises(LookupError) as caught:
        await every_cancel_point(scenario)

    assert "suspension 1" in caught.value.__notes__[0]


async def test_a_scenario_that_cancels_itself_is_an_error():
    async def scenario() -> None:
        raise asyncio.CancelledError

    with pytest.raises(AssertionError, match="nobody had interrupted it"):
        await every_cancel_point(scenario)


async def test_an_endless_scenario_is_given_up():
    async def scenario() -> None:
        for _ in range(100):
            await anyio.sleep(1)

    with pytest.raises(AssertionError, match="more suspensions than max_runs=50"):
        await every_cancel_point(scenario, max_runs=50)
    with pytest.raises(AssertionError, match="more turns than max_runs=50"):
        await every_moment(scenario, lambda: None, max_runs=50)


async def test_a_run_that_never_ends_is_an_error_that_says_who_waits_where():
    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever, name="the sleeper")

    with pytest.raises(
        AssertionError, match=r"(?s)not over after 3,600 s.*the sleeper: "
    ) as caught:
        await every_moment(scenario, lambda: None)

    assert "acted in turn 0" in caught.value.__notes__[0]


def test_a_thread_that_hangs_says_in_which_turn_it_was_interrupted():
    never = threading.Event()

    async def scenario() -> None:
        try:
            await anyio.sleep(1)
            await anyio.to_thread.run_sync(never.wait)
        finally:
            never.set()  # or the closing loop would wait for it, too

    async def main() -> None:
        await every_moment(scenario, lambda: None)

    with (
        asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=0.1)) as runner,
        pytest.raises(DeadlockError, match=r"\(acted in turn 0\)"),
    ):
        runner.run(main())


async def test_the_act_happens_in_each_turn_of_the_scenario(books: Books):
    acted: list[tuple[float, int]] = []
    begun: list[float] = []
    steps: list[int] = []

    async def scenario() -> None:
        begun.append(anyio.current_time())
        for step in range(3):
            steps.append(step)
            await anyio.sleep(1)

    def act() -> None:
        acted.append((anyio.current_time() - begun[-1], steps[-1]))

    report = await every_moment(scenario, act)

    assert report.runs == len(acted) + 1
    assert acted == sorted(acted)
    # Before each jump of the clock and after it, with the scenario in each of its steps.
    assert {(0, 0), (1, 1), (2, 2)} <= set(acted)
    assert all("scenario" in place for place in report.places)


async def test_an_error_of_the_act_fails_the_run():
    def act() -> None:
        raise LookupError("no such client")

    with pytest.raises(LookupError) as caught:
        await every_moment(lambda: anyio.sleep(1), act)

    assert "acted in turn 0" in caught.value.__notes__[0]


class CarefulApp:
    """Streams three chunks from a slot; gives the slot back whatever happens."""

    def __init__(self, books: Books) -> None:
        self.books = books

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.listen, receive, tasks.cancel_scope)
            await self.stream(send)
            tasks.cancel_scope.cancel()

    async def listen(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def stream(self, send: Send) -> None:
        self.books.held += 1
        try:
            await send({"type": "http.response.start", "status": 200})
            for _ in range(3):
                await anyio.sleep(0.5)
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await send({"type": "http.response.body"})
        finally:
            with anyio.move_on_after(5, shield=True):
                await anyio.sleep(0.1)
                self.books.held -= 1


async def test_a_client_that_leaves_at_any_moment_frees_the_slot(books: Books):
    exchanges: list[Exchange] = []

    async def scenario() -> None:
        exchanges.append(Exchange(CarefulApp(books)))
        await exchanges[-1].run()

    def leave() -> None:
        exchanges[-1].leave()

    def check() -> None:
        books.check()
        last = exchanges[-1]
        assert last.completed or last.left_at is not None
        assert last.outcome == "returned"

    report = await every_moment(scenario, leave, check=check)

    assert report.runs == len(exchanges)
    assert {len(exchange.chunks) for exchange in exchanges} == {0, 1, 2, 3}


async def test_cancelling_the_chaos_cancels_the_run(books: Books):
    async def scenario() -> None:
        books.held += 1
        try:
            await anyio.sleep(100)
        finally:
            books.held -= 1

    with anyio.move_on_after(5) as scope:
        await every_moment(scenario, lambda: None)

    assert scope.cancelled_caught
    books.check()


@pytest.mark.realtime("asyncio", "uvloop")
async def test_cancel_points_are_found_on_real_loops_too():
    async def scenario() -> None:
        await anyio.to_thread.run_sync(int)
        await anyio.lowlevel.checkpoint()

    assert (await every_cancel_point(scenario)).runs == 5
