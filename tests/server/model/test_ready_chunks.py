"""What a model has at hand goes out together; who was handed what is still known to the chunk."""

from __future__ import annotations

import anyio
import pytest

from streamkit import Reason
from streamkit.testing import Exchange

QUICK_UNTIL = 16  # chunks that go out one by one first
EVENTS = "text/event-stream"
MINE = {"x-request-id": "r"}


class Burst:
    """So many chunks without waiting, then others that are waited for."""

    async def predict(self, inputs):
        ready, late = inputs
        for index in range(ready):
            yield f"{index},"
        for index in range(late):
            await anyio.sleep(1)
            yield f"late {index},"


class SyncBurst:
    def predict(self, inputs):
        ready, _ = inputs
        for index in range(ready):
            yield f"{index},"


def text_of(ready: int, late: int = 0) -> str:
    return "".join([f"{i}," for i in range(ready)] + [f"late {i}," for i in range(late)])


def pieces(exchange: Exchange) -> int:
    return len(exchange.chunks)


@pytest.mark.parametrize("model", [Burst, SyncBurst])
@pytest.mark.parametrize("accept", ["*/*", EVENTS])
async def test_what_a_model_has_at_hand_goes_out_in_few_sends(serve, ask, model, accept) -> None:
    app = serve(model)

    exchange = await ask(app, [1000, 0], accept=accept, headers=MINE).run()

    whole = exchange.text if accept != EVENTS else "".join(e.data for e in exchange.events[:-1])
    assert whole == text_of(1000)
    assert exchange.completed
    few = QUICK_UNTIL + 1000 / 64 + 4
    # A thread makes its chunks while others go out, and a busy machine lets it make few at a time.
    assert pieces(exchange) <= (few if model is Burst else 5 * few)
    account = app.runner.find("r")
    assert (account.produced, account.delivered, account.undelivered) == (1000, 1000, 0)


async def test_no_chunk_of_a_model_waits_for_one_that_is_not_there(serve, ask) -> None:
    async with ask(serve(Burst), [100, 3]) as exchange:
        await anyio.sleep(0.5)
        assert exchange.text == text_of(100)
        await anyio.sleep(1)
        assert exchange.text == text_of(100, 1)

    assert exchange.text == text_of(100, 3)


async def test_of_a_burst_that_is_cancelled_unsent_no_chunk_counts_as_delivered(serve, ask) -> None:
    app = serve(Burst, request_timeout=2)

    exchange = await ask(
        app,
        [QUICK_UNTIL + 30, 3],
        headers=MINE,
        stops_reading_after_chunks=QUICK_UNTIL,
        leaves_after_seconds=5,
    ).run()
    await app.runner.in_flight.wait_idle()

    account = app.runner.find("r")
    assert (account.reason, account.cancelled_in) == (Reason.DEADLINE, "sending")
    assert exchange.text == text_of(QUICK_UNTIL)
    assert account.delivered == QUICK_UNTIL
    assert account.produced == account.delivered + account.undelivered == QUICK_UNTIL + 30


async def test_a_reader_that_stalls_in_a_burst_is_not_taken_for_a_silent_model(serve, ask) -> None:
    app = serve(Burst, stream_read_timeout=3, write_stall=60)

    await ask(
        app,
        [QUICK_UNTIL + 30, 3],
        headers=MINE,
        stops_reading_after_chunks=QUICK_UNTIL,
        leaves_after_seconds=20,
    ).run()
    await app.runner.in_flight.wait_idle()

    assert app.runner.find("r").reason is Reason.CLIENT_DISCONNECT


async def test_a_model_that_falls_silent_after_a_burst_is_told(serve, ask) -> None:
    class Silent:
        async def predict(self, inputs):
            for _ in range(100):
                yield "x"
            await anyio.sleep(100)
            yield "y"

    app = serve(Silent, stream_read_timeout=3)

    exchange = await ask(app, None, headers=MINE, accept=EVENTS).run()
    await app.runner.in_flight.wait_idle()

    assert exchange.events[-1].event == "error"
    account = app.runner.find("r")
    assert (account.reason, account.delivered) == (Reason.DEADLINE, 100)


async def test_what_a_model_made_before_it_failed_is_delivered(serve, ask) -> None:
    class Breaks:
        async def predict(self, inputs):
            for index in range(90):
                yield f"{index},"
            raise ValueError("broken")

    app = serve(Breaks)

    exchange = await ask(app, None, headers=MINE).run()

    assert exchange.text == text_of(90)
    assert not exchange.completed
    account = app.runner.find("r")
    assert (account.produced, account.delivered) == (90, 90)


async def test_an_iterator_that_a_model_returns_is_not_asked_ahead(serve, ask) -> None:
    class Counting:
        made = 0

        def __aiter__(self):
            return self

        async def __anext__(self):
            if self.made == 100:
                raise StopAsyncIteration
            self.made += 1
            return "x"

    class Model:
        def predict(self, inputs):
            return Counting()

    exchange = await ask(serve(Model)).run()

    assert exchange.text == "x" * 100
    assert pieces(exchange) == 100
