"""What streams cost that are open while nothing happens."""

import pytest
from starlette.responses import StreamingResponse

from . import apps
from .idle import cost_of_the_process, idle, kib_per_stream
from .scenarios import cost

pytestmark = pytest.mark.blocks_the_loop  # blockbuster's wrappers would be counted


async def starlette(scope, receive, send) -> None:
    await StreamingResponse(apps.first_then_silence())(scope, receive, send)


APPS = {
    "starlette": starlette,
    "byte_stream": apps.byte_stream(apps.first_then_silence),
    "event_stream": apps.event_stream(apps.first_then_silence),
    "wrapper_alone": apps.plain_streaming_response(apps.first_then_silence),
}


@pytest.mark.parametrize("case", ["byte_stream", "event_stream"])
def test_an_idle_stream_costs_what_is_budgeted(case: str, check) -> None:
    check(f"idle_minute.{case}", dict((cost(idle(APPS[case]), 16)).items()))


def test_idle_streams_share_one_timer(check) -> None:
    ours = cost_of_the_process(apps.event_stream(apps.first_then_silence))
    bare = cost_of_the_process(apps.bare_stream(apps.first_then_silence))
    counts = ours - bare

    check("idle_minute.process", dict(counts.items()))


@pytest.mark.parametrize("case", APPS)
def test_an_idle_stream_keeps_what_is_budgeted(case: str, check) -> None:
    # What the allocator keeps for later is not ours to say.
    check(f"memory.{case}", {"kib": kib_per_stream(APPS[case])}, tolerance=0.03)
