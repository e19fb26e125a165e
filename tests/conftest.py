"""What every test is held to: it blocks no loop and leaves neither task nor thread behind.

Which event loop a test gets (virtual time, unless it is marked ``realtime``) is decided by
``streamkit.testing.plugin``, as it is for the tests of our users.
"""

import asyncio
import gc
import inspect
import threading
from collections.abc import AsyncIterator, Generator, Iterator

import pytest
from blockbuster import BlockBuster

from streamkit.streams._workers import close_idle_threads

THREAD_GRACE = 1.0  # seconds; a thread that was told to end may need a moment on a busy machine


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing that is made while tests are collected is garbage: a tenth of that was looking."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """What was loaded until now, every test itself included, is never garbage: do not look there.

    A collection takes half a second of a worker's time otherwise, and tests ask for many.
    """
    import hypothesis  # noqa: F401, PLC0415 - its plugin does so at the end, and warns of the freeze

    gc.collect()
    gc.freeze()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The trio canary's loop: time jumps as soon as everybody waits. No other run asks for it."""
    from trio.testing import MockClock  # noqa: PLC0415 - the default run needs no trio

    return "trio", {"clock": MockClock(autojump_threshold=0)}


@pytest.fixture(scope="session")
def blocking_call_detector() -> BlockBuster:
    detector = BlockBuster()
    # `make coverage`: its tracer takes a lock of its own, in whatever line it happens to be.
    lock = detector.functions["threading.Lock.acquire"]
    lock.can_block_in("coverage/collector.py", "lock_data")
    return detector


@pytest.fixture(autouse=True)
def no_blocking_call(
    request: pytest.FixtureRequest, blocking_call_detector: BlockBuster
) -> Iterator[None]:
    """A call that would block the event loop raises ``BlockingError`` instead."""
    if any(request.node.get_closest_marker(mark) for mark in ("realtime", "blocks_the_loop")):
        yield
        return
    blocking_call_detector.activate()
    try:
        yield
    finally:
        blocking_call_detector.deactivate()


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    # sse-starlette keeps a task for each loop it ever ran in (it waits for the server's exit).
    left = {task for task in left if "sse_starlette" not in repr(task)}

    assert not left, f"{len(left)} tasks outlived the test: {left}"


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    on_asyncio = request.config.pluginmanager.hasplugin("asyncio")
    if on_asyncio and inspect.iscoroutinefunction(request.function):
        # Asked for here, before the test's own fixtures, hence torn down after them.
        request.getfixturevalue("no_task_left")
    before = set(threading.enumerate())
    yield
    close_idle_threads()  # parked on purpose, for the next sync generator
    ours = {t for t in threading.enumerate() if t.name.startswith("streamkit-")} - before
    for thread in ours:
        thread.join(THREAD_GRACE)

    assert not [thread for thread in ours if thread.is_alive()]
