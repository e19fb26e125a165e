"""Held work: no cancel of its creator reaches it, and nothing of it is lost."""

import anyio
import pytest

from streamkit._core import held, hold, wait_held


async def test_held_work_survives_the_cancel_of_whoever_started_it():
    done = []

    async def abort() -> None:
        await anyio.sleep(1)
        done.append(True)

    with anyio.CancelScope() as scope:
        scope.cancel()
        hold(abort, name="abort")
        await anyio.lowlevel.checkpoint()

    assert held() == ["abort"]
    assert await wait_held(5) == []
    assert done == [True]


async def test_held_work_that_takes_too_long_is_given_up_and_named(caplog):
    hold(anyio.sleep_forever, name="an abort that hangs", limit=2)

    assert await wait_held(1) == ["an abort that hangs"]
    assert await wait_held(5) == []
    assert "an abort that hangs did not end within 2 s and was given up" in caplog.text


@pytest.mark.parametrize("kind", [OSError, SystemExit])  # the second would end the process
async def test_an_error_of_held_work_is_logged(caplog, kind):
    async def fail() -> None:
        raise kind("the engine's socket")

    hold(fail, name="abort")
    await wait_held(1)

    assert "abort failed" in caplog.text
    assert "the engine's socket" in caplog.text
