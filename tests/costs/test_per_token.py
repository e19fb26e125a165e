"""What one token costs: loop turns, tasks, timers, calls and bytecodes."""

import pytest

from . import apps
from .scenarios import Scenario, cost, engine_tokens, model_tokens, tokens
from .threads import cost_of_sync_token, two_threads

pytestmark = pytest.mark.blocks_the_loop  # blockbuster's wrappers would be counted

CASES: dict[str, Scenario] = {
    "event_stream": tokens(apps.event_stream, apps.ready),
    "event_stream_paced": tokens(apps.event_stream, apps.paced),
    "event_stream_waited": tokens(apps.event_stream, apps.waited),
    "byte_stream": tokens(apps.byte_stream, apps.ready),
    "wrapper_alone": tokens(apps.plain_streaming_response, apps.ready),
    "engine": engine_tokens,
    "model": model_tokens,
}


@pytest.mark.parametrize("case", CASES)
def test_a_token_costs_what_is_budgeted(case: str, check) -> None:
    check(f"token.{case}", dict(cost(CASES[case]).items()))


@two_threads
def test_a_token_of_a_sync_generator_costs_what_is_budgeted(check) -> None:
    loop_side, thread_side = cost_of_sync_token()

    # Who is first at the first token and at the end is not ours to say: a few turns in 2,048.
    check("token.sync_generator", dict(loop_side.items()), tolerance=0.01)
    check("token.sync_generator_thread", dict(thread_side.items()), tolerance=0.01)


@pytest.mark.parametrize("source", [apps.ready, apps.paced])
def test_a_token_takes_no_task_and_no_timer_and_the_turns_of_bare_asgi(source) -> None:
    bare = cost(tokens(apps.bare_stream, source))
    ours = cost(tokens(apps.event_stream, source))

    assert ours.tasks == ours.timers == 0
    assert ours.turns <= bare.turns + 1 / 16  # one in 16 lets others run: the generator may not
