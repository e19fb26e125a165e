"""The read timeout of a stream stops the work, and not only the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from streamkit._core import Reason, now
from streamkit.errors import StreamCancelled
from streamkit.testing import ThreadGate

from .conftest import Serve, ask

pytestmark = pytest.mark.asyncio_only


class Paced:
    """Sleeps so long before each chunk."""

    def __init__(self, *pauses: float) -> None:
        self.pauses = pauses
        self.ended_at: float | None = None

    async def predict(self, inputs: Any) -> AsyncIterator[float]:
        try:
            for pause in self.pauses:
                await anyio.sleep(pause)
                yield pause
        finally:
            self.ended_at = now()


async def test_a_stream_that_falls_silent_is_cancelled_with_its_work(serve: Serve) -> None:
    model = Paced(1, 1, 100)
    runner = serve(model, read_timeout=5)

    with pytest.raises(StreamCancelled, match="no further chunk came for 5 s"):
        await ask(runner, request_id="r")
    await runner.in_flight.wait_idle()

    account = runner.find("r")
    assert account is not None
    assert (account.reason, account.delivered) == (Reason.DEADLINE, 2)
    assert model.ended_at == 7
    assert runner.slots.taken == 0


async def test_the_first_chunk_has_a_limit_of_its_own(serve: Serve) -> None:
    slow_start = serve(Paced(50, 1), read_timeout=5, first_chunk_timeout=60)
    assert await ask(slow_start) == [50, 1]

    slow_steps = serve(Paced(1, 3), read_timeout=5, first_chunk_timeout=2)
    assert await ask(slow_steps) == [1, 3]

    began = now()
    with pytest.raises(StreamCancelled, match="no first chunk came for 2 s"):
        await ask(serve(Paced(3, 1), read_timeout=5, first_chunk_timeout=2))
    assert now() - began == 2


async def test_a_stream_that_keeps_its_pace_is_left_alone_however_long_it_is(serve: Serve) -> None:
    assert len(await ask(serve(Paced(*[4.9] * 50), read_timeout=5))) == 50


async def test_a_reader_that_is_slow_is_not_taken_for_a_silent_model(serve: Serve) -> None:
    runner = serve(Paced(1, 1, 1), read_timeout=5)
    got: list[float] = []

    async def read(chunks: AsyncIterator[float]) -> None:
        async for chunk in chunks:
            await anyio.sleep(20)
            got.append(chunk)

    with runner.accept() as call:
        call.admit()
        result = await call.predict(None, None)
        await result.items.drive(read)
        await call.complete()

    assert got == [1, 1, 1]


async def test_the_limit_holds_for_threads_as_well(serve: Serve) -> None:
    gate = ThreadGate()

    class Model:
        def predict(self, inputs: Any) -> Iterator[int]:
            yield 1
            gate.wait()
            yield 2

    runner = serve(Model(), read_timeout=5)

    with pytest.raises(StreamCancelled, match="no further chunk came for 5 s"):
        await ask(runner)
    assert now() == 5  # its thread is still there: nobody waits for it
    gate.open()
    await runner.in_flight.wait_idle()

    assert runner.slots.taken == 0
