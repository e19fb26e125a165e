"""One call under a token: a coroutine, a function on a worker thread, a function right here."""

import threading
from contextvars import ContextVar

import anyio
import pytest

from streamkit._core import (
    CancelSource,
    CancelToken,
    Reason,
    current_token,
    held,
    now,
    wait_held,
)
from streamkit.errors import StreamCancelled, ThreadInterrupted, UsageBug
from streamkit.streams._calls import call_here, call_in_thread
from streamkit.streams._thread_job import _running, thread_statistics
from streamkit.testing import ThreadGate, every_moment, wait_all_tasks_blocked

pytestmark = pytest.mark.asyncio_only

colour: ContextVar[str] = ContextVar("colour", default="none")


def describe(prompt: str, *, upper: bool = False) -> tuple[str, CancelToken]:
    return prompt.upper() if upper else prompt, current_token()


def fail() -> None:
    raise LookupError("no such prompt")


# -- a coroutine -------------------------------------------------------------------------------


# -- a function in a thread --------------------------------------------------------------------


async def test_a_function_in_a_thread_returns_what_it_returns() -> None:
    colour.set("the caller's")
    token = CancelSource().token

    def work(prompt: str, *, upper: bool) -> tuple[object, ...]:
        return *describe(prompt, upper=upper), colour.get(), threading.current_thread().name

    *what, thread = await call_in_thread(work, ("hi",), {"upper": True}, token=token)

    assert what == ["HI", token, "the caller's"]
    assert thread.startswith("streamkit-call-")
    assert not token._listeners


async def test_a_function_in_a_thread_raises_what_it_raises() -> None:
    with pytest.raises(LookupError, match="no such prompt") as caught:
        await call_in_thread(fail, (), {}, token=CancelSource().token)

    assert caught.traceback[-1].name == "fail"


async def test_the_caller_is_free_at_once_and_the_thread_is_awaited_at_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = ThreadGate()
    source = CancelSource()
    source.cancel_after(0.25)

    with pytest.raises(StreamCancelled):
        await call_in_thread(gate.wait, (), {}, token=source.token, report_after=0.5)

    assert now() == 0.25
    assert thread_statistics().running == 1
    [job] = _running
    assert repr(job) == "<ThreadJob ThreadGate.wait stopping>"
    assert held() == ["the end of ThreadGate.wait in its thread"]

    await anyio.sleep(1.0)
    assert "ThreadGate.wait keeps its cancel waiting: after 0.5 s it is still in its code" in (
        caplog.text
    )
    gate.open()
    assert await wait_held(1.0) == []
    assert thread_statistics().running == 0
    assert repr(job) == "<ThreadJob ThreadGate.wait ended>"
    assert "ThreadGate.wait came back 1.000 s after its cancel" in caplog.text


async def test_a_function_that_asks_its_token_stops_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = ThreadGate()

    def work() -> None:
        gate.wait()
        current_token().raise_if_cancelled()

    source = CancelSource()
    source.cancel_after(0.25)
    with pytest.raises(StreamCancelled):
        await call_in_thread(work, (), {}, token=source.token)
    gate.open()
    await wait_held(1.0)

    assert caplog.records == []


async def test_what_fails_after_its_caller_has_gone_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = ThreadGate()

    def work() -> None:
        gate.wait()
        fail()

    source = CancelSource()
    source.cancel_after(0.25)
    with pytest.raises(StreamCancelled):
        await call_in_thread(work, (), {}, token=source.token)
    gate.open()
    await wait_held(1.0)

    assert "work failed after it was told to stop" in caplog.text
    assert "LookupError: no such prompt" in caplog.text


async def test_a_caller_that_is_cancelled_leaves_the_thread_to_the_shutdown() -> None:
    gate = ThreadGate()

    with anyio.move_on_after(0.25) as scope:
        await call_in_thread(gate.wait, (), {}, token=CancelSource().token)

    assert scope.cancelled_caught
    assert held() == ["the end of ThreadGate.wait in its thread"]
    gate.open()
    assert await wait_held(1.0) == []


async def test_a_function_in_a_thread_can_be_interrupted() -> None:
    source = CancelSource()
    ended: list[str] = []

    def work() -> None:
        try:
            source.cancel(Reason.REQUESTED)
            while True:
                pass
        finally:
            ended.append("cleaned up")

    with pytest.raises(StreamCancelled):
        await call_in_thread(work, (), {}, token=source.token, interrupt=True)
    await wait_held(1.0)

    assert ended == ["cleaned up"]
    assert thread_statistics().running == 0


async def test_a_call_in_a_thread_cancelled_at_every_moment_has_one_end() -> None:
    sources: list[CancelSource] = []
    ends: list[str] = []

    async def scenario() -> None:
        sources.append(CancelSource())
        gate = ThreadGate()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_open_later, gate)
                ends.append(await call_in_thread(_wait_at, (gate,), {}, token=sources[-1].token))
        except* StreamCancelled:
            ends.append("cancelled")
            gate.open()

    async def check() -> None:
        assert len(ends) == len(sources)
        assert await wait_held(1.0) == []
        assert thread_statistics().running == 0

    await every_moment(scenario, lambda: sources[-1].cancel(Reason.REQUESTED), check=check)

    assert set(ends) == {"cancelled", "result"}


async def _open_later(gate: ThreadGate) -> None:
    await anyio.sleep(0.1)
    gate.open()


def _wait_at(gate: ThreadGate) -> str:
    gate.wait()
    return "result"


# -- a function right here ---------------------------------------------------------------------


async def test_a_function_right_here_returns_and_raises_as_it_does() -> None:
    token = CancelSource().token
    outside = current_token()

    assert call_here(describe, ("hi",), {}, token=token) == ("hi", token)
    with pytest.raises(LookupError):
        call_here(fail, (), {}, token=token)
    assert current_token() is outside


@pytest.mark.parametrize("interrupt", [False, True])
async def test_a_function_right_here_ends_when_it_asks_its_token(interrupt: bool) -> None:
    source = CancelSource()

    def work() -> None:
        source.cancel(Reason.SHED)
        current_token().raise_if_cancelled()

    with pytest.raises(StreamCancelled):
        call_here(work, (), {}, token=source.token, interrupt=interrupt)


async def test_a_function_in_a_frameworks_thread_can_be_interrupted() -> None:
    source = CancelSource()
    log: list[str] = []

    def work() -> None:
        try:
            source.cancel(Reason.CLIENT_DISCONNECT)
            while True:
                pass
        except Exception:  # noqa: BLE001 - what model code does
            log.append("swallowed")
        finally:
            log.append("cleaned up")

    def endpoint() -> None:
        call_here(work, (), {}, token=source.token, interrupt=True)

    with pytest.raises(StreamCancelled) as caught:
        await anyio.to_thread.run_sync(endpoint)

    assert caught.value.cancellation.reason is Reason.CLIENT_DISCONNECT
    assert log == ["cleaned up"]


async def test_an_interrupted_function_that_returns_all_the_same_keeps_its_result() -> None:
    source = CancelSource()

    def work() -> str:
        try:
            source.cancel(Reason.REQUESTED)
            while True:
                pass
        except ThreadInterrupted:
            return "kept"

    def endpoint() -> str:
        return call_here(work, (), {}, token=source.token, interrupt=True)

    assert await anyio.to_thread.run_sync(endpoint) == "kept"


async def test_a_late_cancel_hits_nothing_once_the_call_is_over() -> None:
    source = CancelSource()
    assert call_here(lambda: 1, (), {}, token=source.token, interrupt=True) == 1
    assert not source.token.has_listeners

    source.cancel(Reason.REQUESTED)

    assert sum(1 for _ in range(10_000)) == 10_000


async def test_in_a_script_nothing_is_different() -> None:
    outside = current_token()

    assert call_here(describe, ("hi",), {}, token=outside, interrupt=True) == ("hi", outside)


# -- all of them -------------------------------------------------------------------------------


async def test_a_token_that_was_cancelled_before_runs_nothing() -> None:
    source = CancelSource()
    source.cancel(Reason.REQUESTED)
    ran: list[str] = []

    with pytest.raises(StreamCancelled):
        await call_in_thread(ran.append, ("thread",), {}, token=source.token)
    with pytest.raises(StreamCancelled):
        call_here(ran.append, ("here",), {}, token=source.token)
    await wait_all_tasks_blocked()

    assert ran == []


async def test_limits_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="report_after must be above 0 seconds, got 0"):
        await call_in_thread(fail, (), {}, token=CancelSource().token, report_after=0)
    assert issubclass(UsageBug, TypeError)


@pytest.mark.realtime
async def test_a_call_in_a_thread_can_reach_back_into_the_loop() -> None:
    async def answer() -> int:
        return 42

    def work() -> int:
        return anyio.from_thread.run(answer)

    assert await call_in_thread(work, (), {}, token=CancelSource().token) == 42
