"""Many clients at one slot, half of whom leave at random: it never wedges, and keeps its order."""

import random

import anyio
import pytest
from starlette.responses import StreamingResponse

from streamkit._core import held
from streamkit.testing import Exchange

CLIENTS = 500
PATIENCE = 60.0  # seconds; who leaves does so within them
WORK = 0.1  # seconds


class Ordered:
    """Notes who begins."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.running = 0

    async def work(self, number: int):
        self.began.append(number)
        self.running += 1
        assert self.running == 1
        try:
            yield f"{number} "
            await anyio.sleep(WORK)
            yield "."
        finally:
            self.running -= 1


class Streams(Ordered):
    async def predict(self, inputs):
        async for chunk in self.work(inputs):
            yield chunk


class Answers(Ordered):
    """Truss gives their slots back when the garbage collector comes by, or never."""

    async def predict(self, inputs):
        return StreamingResponse(self.work(inputs))


@pytest.mark.parametrize("kind", [Streams, Answers])
async def test_half_of_a_crowd_may_leave_at_any_moment(serve, ask, kind) -> None:
    chance = random.Random(kind.__name__)
    leaving = {number: chance.uniform(0, PATIENCE) for number in range(0, CLIENTS, 2)}
    app = serve(kind, max_queued=CLIENTS)
    crowd: list[Exchange] = []
    async with anyio.create_task_group() as tasks:
        for number in range(CLIENTS):
            crowd.append(ask(app, number, leaves_after_seconds=leaving.get(number)))
            tasks.start_soon(crowd[-1].run)
            await anyio.sleep(0.001)
    await app.runner.in_flight.wait_idle()

    model, totals = app.service.model, app.runner.statistics()
    assert model.began == sorted(model.began)
    assert model.running == 0
    assert all(exchange.completed for exchange in crowd[1::2])
    assert totals.received == totals.finished + totals.cancelled == CLIENTS
    assert totals.cancelled > CLIENTS // 8
    assert totals.violations == 0
    assert (app.runner.slots.taken, app.runner.slots.waiting) == (0, 0)
    assert held() == []
    # Who left before its turn cost nothing: the slot was in use from the first to the last.
    last = max(exchange.ended_at - crowd[0].started_at for exchange in crowd)
    assert last <= WORK * len(model.began) + 0.01
