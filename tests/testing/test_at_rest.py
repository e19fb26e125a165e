"""What the plugin's assertions and its marker find, and what they let pass."""

from __future__ import annotations

import asyncio
import textwrap
import threading

import anyio
import pytest

from streamkit.engines import FakeEngine, GenerationRequest
from streamkit.testing import assert_engine_idle, assert_nothing_left

pytest_plugins = ["pytester"]


async def test_an_engine_that_runs_is_not_idle_until_it_has_stopped() -> None:
    engine = FakeEngine(slots=1, step_ms=100)
    generation = engine.open(GenerationRequest(prompt="a", max_tokens=30))
    await anext(aiter(generation))

    with pytest.raises(AssertionError, match=r"1 requests still run or wait after 0\.5 s"):
        await assert_engine_idle(engine, within=0.5)
    await generation.aclose()
    await assert_engine_idle(engine, within=0.5)
    await engine.aclose()


async def test_what_tells_the_number_may_be_a_function_of_either_kind() -> None:
    counts = [2.0, 1.0, 0.0, 0.0]

    async def told() -> float:
        return counts.pop(0)

    await assert_engine_idle(told)
    await assert_engine_idle(lambda: counts.pop(0))
    assert not counts


async def test_a_task_that_is_left_is_found_with_the_place_where_it_waits() -> None:
    with pytest.raises(AssertionError, match=r"forgotten: .*sleep_forever"):
        async with assert_nothing_left(within=0.1):
            task = asyncio.create_task(anyio.sleep_forever(), name="forgotten")  # noqa: TID251
    task.cancel()


@pytest.mark.realtime
async def test_a_thread_that_is_left_is_found() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-behind")
    with pytest.raises(AssertionError, match="left-behind"):
        async with assert_nothing_left(within=0.1):
            thread.start()
    stop.set()
    thread.join()


@pytest.mark.realtime
async def test_what_ends_in_time_and_what_waits_in_a_pool_is_not_left() -> None:
    async with assert_nothing_left():
        await anyio.to_thread.run_sync(lambda: None)
        await asyncio.to_thread(lambda: None)
        ends = asyncio.create_task(anyio.sleep(0.05))  # noqa: TID251
    assert ends.done()


@pytest.fixture
def run(pytester: pytest.Pytester):
    def run(tests: str) -> pytest.RunResult:
        pytester.makeini(
            "[pytest]\nasyncio_mode=auto\nasyncio_default_fixture_loop_scope=function\n"
        )
        head = "import anyio, pytest\n"
        pytester.makepyfile(head + textwrap.dedent(tests))
        return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", "--strict-markers")

    return run


SLOTS = """
@pytest.fixture
def slots():
    return []

def all_free(slots):
    assert not slots
"""


@pytest.mark.blocks_the_loop
def test_the_marker_finds_the_one_await_that_leaks(run) -> None:
    result = run(
        SLOTS
        + """
@pytest.mark.every_cancel_point(check=all_free)
async def test_leaks(slots):
    slots.append(1)
    await anyio.sleep(0)
    try:
        await anyio.sleep(0)
    finally:
        slots.clear()
"""
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*in the run that was cancelled at suspension 1 (scope)*"])


@pytest.mark.blocks_the_loop
@pytest.mark.parametrize("how", ["scope", "task"])
def test_the_marker_runs_a_clean_test_once_for_each_await_and_once_more(run, how: str) -> None:
    result = run(
        SLOTS
        + f"""
runs = []

@pytest.mark.every_cancel_point(check=all_free, how="{how}")
async def test_clean(slots):
    runs.append(1)
    slots.append(1)
    try:
        await anyio.sleep(0)
        await anyio.sleep(0)
    finally:
        slots.clear()

def test_it_ran_three_times():
    assert len(runs) == 3
"""
    )

    result.assert_outcomes(passed=2)


@pytest.mark.blocks_the_loop
@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("@pytest.mark.every_cancel_point\ndef test_it(): ...", "is for async tests: test_it"),
        (
            "@pytest.mark.every_cancel_point(how='x')\nasync def test_it(): ...",
            'every_cancel_point(how=\'x\'): it is "scope" or "task"',
        ),
    ],
)
def test_a_marker_that_cannot_be_followed_is_an_error(run, test: str, says: str) -> None:
    result = run(f"\n{test}\n")

    assert result.ret != pytest.ExitCode.OK
    assert says in result.stdout.str() + result.stderr.str()
