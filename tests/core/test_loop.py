"""The seam to the event loop: one clock, readable wherever streamkit's code runs."""

import anyio
import pytest

from streamkit._core import current_loop, now


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
