"""The virtual clock: when it stands still, when it jumps, when it says that nothing will come."""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from streamkit.testing import DeadlockError, ThreadGate, VirtualTimeLoop, wait_all_tasks_blocked


def run_apart(main: Callable[[], Awaitable[object]], **options: float) -> object:
    """Run on a loop of its own: one that fails would take the test's loop with it."""

    async def as_coroutine() -> object:
        return await main()

    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(**options)) as runner:
        return runner.run(as_coroutine())


def work(seconds: float) -> None:
    """Keep a thread busy, in real time."""
    threading.Event().wait(seconds)


async def test_sleeping_costs_virtual_time_only():
    real = time.perf_counter()
    start = anyio.current_time()

    for _ in range(2_000):
        await anyio.sleep(10)

    assert anyio.current_time() - start == 20_000
    assert time.perf_counter() - real < 5  # it takes a tenth of a second


async def test_the_clock_begins_at_zero_and_stands_still_while_anything_is_ready():
    assert anyio.current_time() == 0

    for _ in range(100):
        await anyio.lowlevel.checkpoint()

    assert anyio.current_time() == 0


async def test_timers_fire_in_the_order_of_their_deadlines_at_exact_instants():
    log: list[tuple[str, float]] = []

    async def note(name: str, after: float) -> None:
        await anyio.sleep(after)
        log.append((name, anyio.current_time()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(note, "late", 2.5)
        tasks.start_soon(note, "early", 0.25)
        with anyio.move_on_after(1):
            await anyio.sleep_forever()
        log.append(("timeout", anyio.current_time()))

    assert log == [("early", 0.25), ("timeout", 1.0), ("late", 2.5)]


@pytest.mark.parametrize(
    "in_thread",
    [
        pytest.param(anyio.to_thread.run_sync, id="anyio"),
        pytest.param(asyncio.to_thread, id="asyncio"),
    ],
)
async def test_a_working_thread_holds_the_clock(in_thread: Callable[..., Awaitable[None]]):
    with anyio.move_on_after(5) as scope:
        await in_thread(work, 0.05)

    assert not scope.cancelled_caught
    assert anyio.current_time() == 0


async def test_a_call_in_an_executor_holds_the_clock_even_when_nobody_waits_for_it_any_more():
    ended: list[float] = []
    loop = asyncio.get_running_loop()

    def in_thread() -> None:
        work(0.05)
        ended.append(loop.time())

    call = loop.run_in_executor(None, in_thread)
    await anyio.lowlevel.checkpoint()
    call.cancel()
    await anyio.sleep(60)

    assert ended == [0]


async def test_a_thread_that_asks_the_loop_lets_the_clock_go_on():
    def in_thread() -> float:
        anyio.from_thread.run(anyio.sleep, 3)
        work(0.02)  # working again: held again
        return anyio.from_thread.run_sync(anyio.current_time)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 10)
        assert await anyio.to_thread.run_sync(in_thread) == 3


async def test_a_thread_of_ones_own_holds_the_clock_when_announced():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    heard: list[float] = []

    def in_thread() -> None:
        work(0.05)
        loop.call_soon_threadsafe(lambda: heard.append(loop.time()))
        loop.thread_parked()

    loop.thread_started()
    thread = threading.Thread(target=in_thread)
    thread.start()
    await anyio.sleep(1)

    assert heard == [0]
    thread.join()


async def test_time_goes_on_while_a_thread_waits_at_a_gate():
    order: list[str] = []

    def step() -> None:
        gate.wait()
        work(0.02)
        order.append("thread")

    async def in_thread() -> None:
        await anyio.to_thread.run_sync(step)

    with ThreadGate() as gate:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_thread)
            await wait_all_tasks_blocked()
            assert gate.waiting == 1
            await anyio.sleep(60)
            gate.open()
            await anyio.sleep(60)
            order.append("test")

    assert order == ["thread", "test"]
    assert anyio.current_time() == 120


async def test_waiting_until_all_are_blocked_costs_no_time_and_comes_before_the_clock():
    log: list[str] = []

    async def busy() -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        log.append("busy")
        await anyio.sleep(1)
        log.append("timer")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(busy)
        await wait_all_tasks_blocked()
        log.append("blocked")

    assert log == ["busy", "blocked", "timer"]


async def test_bytes_on_a_socket_come_before_the_clock():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        with anyio.fail_after(1):
            for number in range(100):
                await loop.sock_sendall(ours, bytes([number]))
                assert await loop.sock_recv(theirs, 1) == bytes([number])

    assert anyio.current_time() == 0


async def test_bytes_on_a_socket_come_before_the_tasks_count_as_blocked():
    log: list[str] = []
    ours, theirs = socket.socketpair()

    async def read() -> None:
        await asyncio.get_running_loop().sock_recv(theirs, 1)
        log.append("read")

    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await wait_all_tasks_blocked()
            ours.send(b"x")
            await wait_all_tasks_blocked()
            log.append("blocked")

    assert log == ["read", "blocked"]


async def test_a_thread_that_parks_without_a_word_lets_the_clock_go():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)

    def in_thread() -> None:
        work(0.02)
        loop.thread_parked()

    loop.thread_started()
    thread = threading.Thread(target=in_thread)
    thread.start()
    await anyio.sleep(1)

    thread.join()


def test_a_deadlock_is_an_error_that_says_who_waits_where():
    async def stuck() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever, name="the sleeper")
            await anyio.Event().wait()

    with pytest.raises(DeadlockError, match="no task can go on") as caught:
        run_apart(stuck)

    message = str(caught.value)
    assert re.search(r"the sleeper: .*sleep_forever", message)
    assert "stuck (test_clock.py:" in message
    assert "locks.py" not in message


def test_the_message_looks_into_generators():
    async def numbers():
        yield 1
        await anyio.Event().wait()

    async def stuck() -> None:
        async for _ in numbers():
            pass

    with pytest.raises(DeadlockError, match=r"stuck .*test_clock.*> .*numbers .*test_clock"):
        run_apart(stuck)


def test_a_deadlock_in_a_labelled_block_names_the_label():
    async def stuck() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        with loop.label("cancelled at turn 7"):
            await anyio.sleep(3)
            await anyio.Event().wait()

    with pytest.raises(DeadlockError, match=r"at 3 s of virtual time \(cancelled at turn 7\)"):
        run_apart(stuck)


def test_a_thread_that_never_ends_is_named_after_the_patience():
    never = threading.Event()

    async def stuck() -> None:
        try:
            await anyio.to_thread.run_sync(never.wait)
        finally:
            never.set()  # or the closing loop would wait for it, too

    with pytest.raises(DeadlockError, match=r"0\.1 s of real time for 1 working") as caught:
        run_apart(stuck, patience=0.1)

    assert "AnyIO worker thread: WorkerThread.run (_asyncio.py" in str(caught.value)


def test_an_open_socket_that_stays_silent_ends_with_the_patience():
    async def stuck() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            await asyncio.get_running_loop().sock_recv(ours, 1)

    with pytest.raises(DeadlockError, match=r"open sockets.*realtime"):
        run_apart(stuck, patience=0.1)


def test_a_thread_that_nobody_announced_may_still_wake_the_loop():
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        timer = threading.Timer(0.05, loop.call_soon_threadsafe, [woken.set])
        timer.start()
        return await woken.wait()

    assert run_apart(main) is True


async def test_a_task_that_ignores_its_cancel_does_not_stop_the_clock(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("streamkit.testing._clock.SPIN_LIMIT", 1_000)
    with anyio.move_on_after(1) as stubborn:
        while anyio.current_time() < 2:
            with contextlib.suppress(asyncio.CancelledError):
                await anyio.sleep(0.5)

    assert stubborn.cancel_called
    assert anyio.current_time() >= 2


def test_spinning_without_end_is_a_deadlock(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamkit.testing._clock.SPIN_LIMIT", 100)

    async def spin() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(DeadlockError, match=r"(?s)5,000 turns without a pause.*spin"):
        run_apart(spin)


async def test_a_spinning_loop_does_not_outrun_a_working_thread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamkit.testing._clock.SPIN_LIMIT", 10)
    monkeypatch.setattr("streamkit.testing._clock.LIVELOCK_LIMIT", 10**9)
    ended = False

    def compute() -> None:
        nonlocal ended
        work(0.05)
        ended = True  # here, and not in the loop: the clock may go on as soon as the thread ends

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, compute)
        tasks.start_soon(anyio.sleep, 60)
        while not ended:
            await anyio.lowlevel.checkpoint()
            assert ended or anyio.current_time() == 0


def test_parking_a_thread_that_was_never_started_is_an_error():
    async def wrong() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.thread_parked()
        await anyio.sleep(1)

    with pytest.raises(RuntimeError, match="more threads were parked than started"):
        run_apart(wrong)


def test_a_run_that_used_threads_can_be_closed():
    async def main() -> str:
        return await asyncio.to_thread(str, 5)

    assert run_apart(main) == "5"


async def test_a_call_between_turns_comes_after_that_many_turns():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    called: list[int] = []
    begun = loop.turns
    loop.call_between_turns(3, lambda: called.append(loop.turns))
    forget = loop.call_between_turns(4, lambda: called.append(-1))
    forget()

    await anyio.sleep(1)
    await anyio.sleep(1)
    await anyio.sleep(1)

    assert called == [begun + 4]


async def test_what_was_called_between_turns_cannot_be_taken_back():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    called: list[str] = []
    forget = loop.call_between_turns(0, lambda: called.append("called"))

    await anyio.lowlevel.checkpoint()
    forget()

    assert called == ["called"]


@pytest.mark.blocks_the_loop
async def test_a_pool_of_ones_own_holds_the_clock():
    ended: list[float] = []
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        loop.set_default_executor(pool)
        for executor in (pool, None):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 60)
                await loop.run_in_executor(executor, work, 0.02)
                ended.append(loop.time())

    assert ended == [0, 60]


async def test_nobody_waits_at_an_open_gate():
    with ThreadGate() as gate:
        gate.open()
        gate.open()
        await anyio.to_thread.run_sync(gate.wait)


@pytest.mark.realtime
async def test_a_gate_that_nobody_opens_lets_its_thread_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamkit.testing._gate.LIMIT", 0.05)
    gate = ThreadGate()
    with pytest.raises(TimeoutError, match=r"nobody opened the gate within 0\.05 s"):
        await anyio.to_thread.run_sync(gate.wait)


def test_its_repr_shows_the_clock_and_what_it_waits_for():
    async def main() -> str:
        await anyio.sleep(1.5)
        return repr(asyncio.get_running_loop())

    assert run_apart(main) == ("<VirtualTimeLoop at 1.5 s, turn 3, 0 timers, 0 threads working>")


@pytest.mark.realtime
async def test_virtual_tools_say_that_they_need_virtual_time():
    with pytest.raises(RuntimeError, match=r"needs virtual time.*streamkit_virtual_time"):
        await wait_all_tasks_blocked()


@pytest.mark.realtime("asyncio", "uvloop")
async def test_a_gate_works_on_real_loops():
    with ThreadGate() as gate:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, gate.wait)
            await gate.wait_reached()
            assert repr(gate) == "<ThreadGate shut, 1 waiting>"
            gate.open()

    assert repr(gate) == "<ThreadGate open, 0 waiting>"
