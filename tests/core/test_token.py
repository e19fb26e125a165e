"""The cancel token: written once, heard by all, in the same turn."""

import threading

import anyio
import pytest

from streamkit._core import NEVER, CancelSource, Phase, Reason, current_token
from streamkit.errors import StreamCancelled


async def test_the_first_cause_wins_and_later_ones_are_kept_as_history():
    source = CancelSource()
    source.phase = Phase.PREFILL

    assert source.cancel(Reason.CLIENT_DISCONNECT, "gone")
    assert not source.cancel(Reason.DRAIN)

    assert source.token.cancellation is not None
    assert source.token.cancellation.reason is Reason.CLIENT_DISCONNECT
    assert source.token.cancellation.phase is Phase.PREFILL
    assert source.token.cancellation.at == anyio.current_time()
    assert [later.reason for later in source.token.history] == [Reason.DRAIN]


async def test_a_storm_of_causes_does_not_pile_up():
    source = CancelSource()
    for _ in range(100):
        source.cancel(Reason.REQUESTED)

    assert len(source.token.history) == 8


async def test_work_that_ended_by_itself_cannot_be_cancelled():
    source = CancelSource()
    heard = []
    source.token.add_listener(heard.append)

    assert source.finish()
    assert not source.cancel(Reason.CLIENT_DISCONNECT)

    assert source.token.finished
    assert not source.token.cancelled
    assert heard == []


async def test_cancelled_work_does_not_count_as_finished():
    source = CancelSource()
    source.cancel(Reason.REQUESTED)

    assert not source.finish()


async def test_listeners_run_in_the_turn_of_the_cancel_in_order_and_once():
    source = CancelSource()
    heard = []
    source.token.add_listener(lambda _: heard.append("first"))
    source.token.add_listener(lambda _: heard.append("second"))

    source.cancel(Reason.REQUESTED)
    source.cancel(Reason.REQUESTED)

    assert heard == ["first", "second"]


async def test_a_late_listener_runs_at_once():
    source = CancelSource()
    source.cancel(Reason.REQUESTED)
    heard = []

    source.token.add_listener(heard.append)

    assert heard == [source.token.cancellation]


async def test_a_removed_listener_says_whether_it_was_still_waiting():
    source = CancelSource()
    heard = []
    waiting = source.token.add_listener(heard.append)
    called = source.token.add_listener(lambda _: None)

    assert waiting.remove()
    assert not waiting.remove()
    source.cancel(Reason.REQUESTED)

    assert not called.remove()
    assert heard == []


async def test_a_listener_that_fails_is_logged_and_hurts_no_other(caplog):
    source = CancelSource()
    heard = []

    def fail(_: object) -> None:
        raise RuntimeError("mine")

    source.token.add_listener(fail)
    source.token.add_listener(heard.append)

    source.cancel(Reason.REQUESTED)

    assert len(heard) == 1
    assert "a cancel listener failed" in caplog.text


async def test_asking_raising_and_waiting_are_one_fact():
    source = CancelSource()
    token = source.token
    token.raise_if_cancelled()
    seen = []

    async def wait() -> None:
        seen.append(await token.wait())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        source.cancel(Reason.DEADLINE, "too late")

    assert seen == [token.cancellation]
    assert token.cancelled
    assert token.wait_in_thread(0)
    with pytest.raises(StreamCancelled, match=r"cancelled \(deadline\): too late"):
        token.raise_if_cancelled()


async def test_a_wait_that_is_cancelled_leaves_no_listener():
    source = CancelSource()
    with anyio.move_on_after(1):
        await source.token.wait()

    assert not source.token.has_listeners


async def test_a_child_is_cancelled_with_its_parent_and_names_it_as_the_cause():
    parent = CancelSource()
    child = parent.token.child()
    child.phase = Phase.DECODE

    parent.cancel(Reason.CLIENT_DISCONNECT)

    assert child.token.cancellation is not None
    assert child.token.cancellation.reason is Reason.CLIENT_DISCONNECT
    assert child.token.cancellation.phase is Phase.DECODE
    assert child.token.cancellation.root == parent.token.cancellation


async def test_a_child_of_a_cancelled_token_is_born_cancelled_and_unlinked():
    one, other = CancelSource(), CancelSource()
    one.cancel(Reason.DEADLINE)

    child = one.token.child(other.token)

    assert child.token.cancellation is not None
    assert child.token.cancellation.root == one.token.cancellation
    assert not other.token.has_listeners


async def test_a_child_leaves_its_parent_alone_and_unlinks_when_it_ends():
    parent = CancelSource()
    children = [parent.token.child() for _ in range(3)]

    children[0].cancel(Reason.REQUESTED)
    children[1].finish()
    children[2].close()

    assert not parent.token.cancelled
    assert not parent.token.has_listeners


async def test_a_child_of_two_is_cancelled_by_whichever_comes_first():
    one, other = CancelSource(), CancelSource()
    child = one.token.child(other.token)

    other.cancel(Reason.DRAIN)
    one.cancel(Reason.CLIENT_DISCONNECT)

    assert child.token.cancellation is not None
    assert child.token.cancellation.reason is Reason.DRAIN
    assert not one.token.has_listeners


async def test_a_deadline_cancels_at_its_instant():
    source = CancelSource()
    begun = anyio.current_time()
    source.cancel_after(2.5)

    cancellation = await source.token.wait()

    assert cancellation.reason is Reason.DEADLINE
    assert cancellation.at == pytest.approx(begun + 2.5)
    assert "2.5 s" in cancellation.detail


async def test_deadlines_only_tighten():
    source = CancelSource()
    source.cancel_after(1)
    source.cancel_after(5)

    assert source.token.remaining() == pytest.approx(1)
    source.cancel_after(0.5)
    assert source.token.remaining() == pytest.approx(0.5)
    source.cancel_after(-1)
    assert source.token.cancelled


async def test_a_child_shows_its_parents_deadline():
    parent = CancelSource()
    parent.cancel_after(3)

    assert parent.token.child().token.remaining() == pytest.approx(3)


async def test_work_that_ended_is_not_hit_by_its_deadline():
    source = CancelSource()
    source.cancel_after(1)
    source.finish()
    await anyio.sleep(2)

    assert not source.token.cancelled


async def test_a_cancel_from_a_thread_is_seen_there_at_once_and_heard_in_the_loop():
    source = CancelSource()
    home = threading.get_ident()
    heard: list[int] = []
    source.token.add_listener(lambda _: heard.append(threading.get_ident()))

    def cancel() -> bool:
        source.cancel(Reason.REQUESTED)
        return source.token.cancelled

    assert await anyio.to_thread.run_sync(cancel)
    await anyio.sleep(0.01)

    assert heard == [home]


async def test_a_thread_that_waits_wakes_although_the_loop_is_busy():
    source = CancelSource()
    woke = []

    async with anyio.create_task_group() as tasks:

        async def in_thread() -> None:
            woke.append(await anyio.to_thread.run_sync(source.token.wait_in_thread, 10))

        tasks.start_soon(in_thread)
        await anyio.lowlevel.checkpoint()
        source.cancel(Reason.REQUESTED)

    assert woke == [True]


@pytest.mark.asyncio_only  # trio's virtual clock knows nothing of threads
async def test_a_thread_that_waits_holds_no_virtual_clock():
    source = CancelSource()
    source.cancel_after(3600)

    assert await anyio.to_thread.run_sync(source.token.wait_in_thread)
    assert anyio.current_time() == source.token.cancellation.at


@pytest.mark.realtime
async def test_a_thread_gives_up_waiting_after_its_timeout():
    source = CancelSource()

    assert not await anyio.to_thread.run_sync(source.token.wait_in_thread, 0.01)
    source.cancel(Reason.REQUESTED)
    assert await anyio.to_thread.run_sync(source.token.wait_in_thread, 0.01)


async def test_outside_any_work_the_token_is_one_that_nobody_can_cancel():
    token = current_token()
    token.add_listener(lambda _: None)

    assert token is NEVER
    assert not token.cancellable
    assert not token.has_listeners  # nobody will ever call them: keeping them would be a leak
