"""The seam to the event loop: one clock, readable wherever streamkit's code runs."""

import anyio

from streamkit._core import current_loop, now


async def test_the_clock_can_be_read_in_a_timer_where_no_task_is_running():
    loop = current_loop()
    read = []
    due = loop.now() + 5

    loop.call_at(due, lambda: read.append(now()))
    await anyio.sleep_until(due + 1)

    assert read == [due]
