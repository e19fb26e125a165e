"""The bridge from token to scope, and the interrupter that stands in for it between yields."""

import asyncio
import contextlib

import anyio
import pytest

from streamkit._core import CancelSource, Interrupted, Reason, beside, cancel_scope, current_loop
from streamkit.errors import StreamCancelled


async def test_a_block_ends_where_it_waits_and_raises_what_happened():
    source = CancelSource()
    source.cancel_after(1)

    with pytest.raises(StreamCancelled) as caught, cancel_scope(source.token):
        await anyio.sleep(60)

    assert caught.value.cancellation is source.token.cancellation
    assert anyio.current_time() == pytest.approx(source.token.cancellation.at)


async def test_a_block_under_a_cancelled_token_ends_at_its_first_await():
    source = CancelSource()
    source.cancel(Reason.REQUESTED)

    with pytest.raises(StreamCancelled), cancel_scope(source.token):
        await anyio.sleep(60)


async def test_a_block_that_came_to_its_end_keeps_its_result():
    source = CancelSource()
    with cancel_scope(source.token):
        source.cancel(Reason.REQUESTED)
        result = "done"

    assert result == "done"


async def test_a_block_leaves_no_listener():
    source = CancelSource()
    with cancel_scope(source.token):
        pass

    assert not source.token.has_listeners


async def test_an_interrupt_ends_the_step_and_nothing_else():
    interrupter = current_loop().interrupter()
    seen = []

    async def work() -> None:
        try:
            await interrupter.step(anyio.sleep(60))
        except Interrupted:
            seen.append("interrupted")
        await anyio.sleep(1)  # the task itself was not cancelled
        seen.append("went on")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await anyio.sleep(1)
        interrupter.interrupt()

    assert seen == ["interrupted", "went on"]


async def test_an_interrupt_between_steps_does_nothing():
    interrupter = current_loop().interrupter()
    interrupter.interrupt()

    async def answer() -> int:
        await anyio.sleep(1)
        return 42

    assert await interrupter.step(answer()) == 42


async def test_a_step_that_swallows_the_interrupt_is_interrupted_all_the_same():
    interrupter = current_loop().interrupter()

    async def stubborn() -> str:
        with contextlib.suppress(BaseException):
            await anyio.sleep(60)
        return "a result for nobody"

    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            with pytest.raises(Interrupted):
                await interrupter.step(stubborn())
            await anyio.sleep(1)

        tasks.start_soon(work)
        await anyio.sleep(1)
        interrupter.interrupt()


@pytest.mark.asyncio_only
async def test_a_step_that_fails_on_its_interrupt_leaves_no_cancel_in_the_task():
    interrupter = current_loop().interrupter()
    left = []

    async def fails() -> None:
        try:
            await anyio.sleep(60)
        finally:
            raise KeyError("in cleanup")

    async def work() -> None:
        with pytest.raises(KeyError):
            await interrupter.step(fails())
        task = asyncio.current_task()
        assert task is not None
        left.append(task.cancelling())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await anyio.sleep(1)
        interrupter.interrupt()

    assert left == [0]


async def test_an_outer_cancel_goes_before_an_interrupt():
    interrupter = current_loop().interrupter()
    seen = []

    async def work() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            try:
                await interrupter.step(anyio.sleep(60))
            except Interrupted:
                seen.append("interrupted")
        seen.append(scope.cancelled_caught)

    scopes: list[anyio.CancelScope] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await anyio.sleep(1)
        interrupter.interrupt()
        scopes[0].cancel()

    assert seen in ([True], ["interrupted", False])  # one of the two, never both, never a leak


async def test_an_interrupt_asked_for_by_the_step_itself_hits_the_step():
    interrupter = current_loop().interrupter()

    async def work() -> None:
        interrupter.interrupt()
        await anyio.sleep(60)

    with pytest.raises(Interrupted):
        await interrupter.step(work())
    await anyio.sleep(1)


async def test_a_task_beside_a_block_ends_with_it_and_wraps_no_error():
    ended = []

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    async def block() -> None:
        async with beside(watch, "watch"):
            await anyio.sleep(1)
            raise KeyError

    with pytest.raises(KeyError):
        await block()

    assert ended == [True]
