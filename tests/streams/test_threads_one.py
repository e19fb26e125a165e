"""Several calls on one and the same thread: what belongs to a thread stays between them."""

import threading

import pytest

from streamkit._core import CancelSource, now, wait_held
from streamkit.errors import StreamCancelled
from streamkit.streams import OneThread, call_in_thread
from streamkit.testing import ThreadGate

pytestmark = pytest.mark.asyncio_only


async def test_all_calls_run_on_one_thread_that_nobody_else_is_given() -> None:
    token = CancelSource().token
    own, others = set[int](), set[int]()

    with OneThread() as thread:
        for _ in range(10):
            others.add(await call_in_thread(threading.get_ident, (), {}, token=token))
            own.add(await call_in_thread(threading.get_ident, (), {}, token=token, thread=thread))

    assert len(own) == 1
    assert not own & others
    assert threading.get_ident() not in own


async def test_a_thread_that_was_never_used_is_never_started() -> None:
    before = threading.active_count()

    with OneThread() as thread:
        pass

    assert threading.active_count() == before
    assert not thread.thread.is_alive()


async def test_its_cancelled_call_is_left_behind_and_ends_the_thread_when_it_comes_back() -> None:
    gate = ThreadGate()
    source = CancelSource()
    source.cancel_after(0.1)

    with OneThread() as one, pytest.raises(StreamCancelled):
        await call_in_thread(gate.wait, (), {}, token=source.token, thread=one)

    assert now() == 0.1
    assert one.thread.is_alive()
    assert one.thread.daemon
    gate.open()  # what the conftest holds every test to: no thread is left
    await wait_held(5.0)
