"""The seam to the event loop: one clock, readable wherever streamkit's code runs."""

import asyncio
from contextvars import ContextVar

import anyio
import pytest

from streamkit._core import current_loop, now, resume


async def test_the_clock_can_be_read_in_a_timer_where_no_task_is_running():
    loop = current_loop()
    read = []
    due = loop.now() + 5

    loop.call_at(due, lambda: read.append(now()))
    await anyio.sleep_until(due + 1)

    assert read == [due]


@pytest.mark.realtime("asyncio", "uvloop")
async def test_the_clock_is_finer_than_a_millisecond_on_every_loop():
    read = {now() for _ in range(1000)}

    assert len(read) > 10
    assert abs(now() - anyio.current_time()) < 1


@pytest.mark.asyncio_only
async def test_a_task_that_is_started_makes_its_first_step_at_once_and_as_itself():
    seen: list[object] = []
    variable: ContextVar[str] = ContextVar("variable", default="the creator's")

    async def work() -> None:
        token = variable.set("its own")
        seen.append(asyncio.current_task())
        with anyio.move_on_after(1) as scope:
            await anyio.sleep(60)
        seen.append(scope.cancelled_caught)
        variable.reset(token)  # fails in any other context
        seen.append(asyncio.current_task())

    task = current_loop().start(work, "work")

    assert seen == [task]
    assert variable.get() == "the creator's"
    assert asyncio.current_task() is not task
    await task
    assert seen == [task, True, task]


@pytest.mark.asyncio_only
async def test_a_started_task_that_fails_or_ends_at_once_is_a_task_like_any_other():
    async def fails() -> None:
        raise ValueError("at once")

    async def ends() -> None: ...

    with pytest.raises(ValueError, match="at once"):
        await current_loop().start(fails, "fails")
    await current_loop().start(ends, "ends")


async def test_a_started_task_is_ended_where_it_waits():
    seen: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("ended")

    current_loop().start(work, "work").cancel()
    await anyio.sleep(1)
    second = current_loop().start(work, "work")
    await anyio.sleep(1)
    second.cancel()
    await anyio.sleep(1)

    assert seen == ["ended", "ended"]


@pytest.mark.asyncio_only
async def test_a_breath_is_long_enough_for_whoever_is_ready():
    loop = current_loop()
    seen: list[str] = []
    loop.call_soon(lambda: seen.append("ready"))

    await loop.breathe()

    assert seen == ["ready"]


@pytest.mark.asyncio_only
async def test_an_await_that_was_begun_by_hand_gives_its_result_after_a_wait():
    async def work() -> str:
        await anyio.sleep(1)
        return "its result"

    steps = work().__await__()

    assert await resume(steps, steps.send(None)) == "its result"
