"""Slots: first come, first served; exact; a waiter that is cancelled is gone in that turn."""

from __future__ import annotations

import random
import threading

import anyio
import pytest

from streamkit._core import NEVER, CancelSource, Reason, now
from streamkit.errors import RequestRefused, StreamCancelled
from streamkit.runner._model._slots import Slots
from streamkit.testing import every_cancel_point, wait_all_tasks_blocked


async def test_those_that_wait_get_the_slot_in_the_order_they_came() -> None:
    slots, order = Slots(1), []

    async def work(number: int) -> None:
        await slots.take(NEVER)
        order.append(number)
        await anyio.sleep(1)
        slots.give_back()

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(work, number)

    assert order == [0, 1, 2, 3, 4]
    assert (slots.taken, slots.waiting) == (0, 0)


async def test_nobody_overtakes_those_that_wait() -> None:
    slots, order = Slots(1), []
    await slots.take(NEVER)

    async def take(name: str) -> None:
        await slots.take(NEVER)
        order.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, "waited")
        await wait_all_tasks_blocked()
        slots.give_back()  # the waiter has it from here on, although it has not run yet
        tasks.start_soon(take, "came later")
        await wait_all_tasks_blocked()
        assert order == ["waited"]
        slots.give_back()


async def test_a_waiter_that_is_cancelled_is_out_of_the_queue_in_that_turn() -> None:
    slots, source = Slots(1), CancelSource()
    await slots.take(NEVER)

    async def wait() -> None:
        with pytest.raises(StreamCancelled):
            await slots.take(source.token)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        assert slots.waiting == 1
        source.cancel(Reason.CLIENT_DISCONNECT)
        assert slots.waiting == 0


async def test_a_slot_granted_to_one_that_is_cancelled_goes_to_the_next() -> None:
    slots, source, served = Slots(1), CancelSource(), []
    await slots.take(NEVER)

    async def leaves() -> None:
        with pytest.raises(StreamCancelled):
            await slots.take(source.token)

    async def stays() -> None:
        await slots.take(NEVER)
        served.append("stays")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leaves)
        await wait_all_tasks_blocked()
        tasks.start_soon(stays)
        await wait_all_tasks_blocked()
        slots.give_back()
        source.cancel(Reason.CLIENT_DISCONNECT)

    assert served == ["stays"]
    assert (slots.taken, slots.waiting) == (1, 0)


async def test_who_waits_too_long_is_refused_and_told_when_to_come_back() -> None:
    slots = Slots(1)
    await slots.take(NEVER)
    began = now()

    with pytest.raises(RequestRefused) as refused:
        await slots.take(NEVER, limit=3)

    assert now() - began == 3
    assert (refused.value.status, refused.value.retry_after) == (503, 3)
    assert slots.waiting == 0


async def test_a_server_that_cancels_a_waiter_at_any_await_loses_no_slot() -> None:
    slots = Slots(1)

    async def scenario() -> None:
        await slots.take(NEVER)
        try:
            with anyio.move_on_after(1):
                await slots.take(NEVER)
        finally:
            slots.give_back()

    await every_cancel_point(scenario, check=lambda: slots.taken == slots.waiting == 0)
    assert (slots.taken, slots.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_of_500_half_of_which_leave_the_others_keep_their_order(seed: int) -> None:
    chance = random.Random(seed)
    slots, served = Slots(chance.choice([1, 3])), []
    stays = [chance.random() < 0.5 for _ in range(500)]

    async def ask(number: int) -> None:
        source = CancelSource()
        if not stays[number]:
            source.cancel_after(chance.random() * 100)
        try:
            await slots.take(source.token)
        except StreamCancelled:
            return
        served.append(number)
        try:
            await anyio.sleep(0.3)
        finally:
            slots.give_back()

    async with anyio.create_task_group() as tasks:
        for number in range(500):
            tasks.start_soon(ask, number)

    assert served == sorted(served)
    assert {number for number in range(500) if stays[number]} <= set(served)
    assert (slots.taken, slots.waiting) == (0, 0)


async def test_who_was_cancelled_before_it_came_gets_none() -> None:
    slots, source = Slots(1), CancelSource()
    source.cancel(Reason.CLIENT_DISCONNECT)

    with pytest.raises(StreamCancelled):
        await slots.take(source.token)

    assert slots.taken == 0


@pytest.mark.realtime
@pytest.mark.asyncio_only
async def test_a_slot_that_is_granted_while_a_thread_cancels_goes_to_the_next() -> None:
    slots, source = Slots(1), CancelSource()
    await slots.take(NEVER)

    async def wait() -> None:
        with pytest.raises(StreamCancelled):
            await slots.take(source.token)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(0.05)
        slots.give_back()
        thread = threading.Thread(target=source.cancel, args=(Reason.REQUESTED,))
        thread.start()
        thread.join()  # the token is cancelled, and its listeners have not run

    assert (slots.taken, slots.waiting) == (0, 0)


def test_there_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Slots(0)
