"""What a client that leaves costs, and that its engine hears of it in the same turn."""

import asyncio

import anyio
import pytest

from .leaving import STAGES, cancels, quiet
from .scenarios import cost
from .wire import Wire

UNITS = 4


@pytest.mark.blocks_the_loop  # blockbuster's wrappers would be counted
@pytest.mark.parametrize("case", STAGES)
def test_a_cancel_costs_what_is_budgeted(case: str, check) -> None:
    stage = STAGES[case]
    counts = cost(cancels(stage), UNITS) - cost(quiet(stage), UNITS)

    check(f"cancel.{case}", dict(counts.items()))


@pytest.mark.parametrize("case", STAGES)
async def test_the_engine_is_told_in_the_turn_in_which_the_app_is_told(case: str) -> None:
    heard: list[int] = []
    async with STAGES[case]() as scene, anyio.create_task_group() as server:

        class Watched(Wire):
            def told(self) -> None:
                # Before the owner of receive() goes on: first of all in the next turn.
                asyncio.get_running_loop().call_soon(lambda: heard.append(scene.aborts()))

        wire = Watched(scene.app, **scene.request)
        server.start_soon(wire.run)
        await scene.reached(wire)
        assert scene.aborts() == 0
        wire.leave()

    assert heard == [1]
