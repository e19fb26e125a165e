"""Ways out of a request that no kind of model takes by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Half(Response):
    """It promises ten bytes, sends four, and returns."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def test_a_response_of_the_models_that_is_not_whole_is_a_failure(serve, ask) -> None:
    class Model:
        async def predict(self, inputs: Any) -> Any:
            return Half()

    app = serve(Model)

    exchange = await ask(app, headers={"x-request-id": "r"}).run()

    assert (exchange.status, exchange.data, exchange.completed) == (200, b"half", False)
    account = app.runner.find("r")
    assert (account.phase, account.detail) == ("failed", "the answer was not completed")
    assert app.runner.slots.taken == 0


class Spins:
    def predict(self, inputs: Any) -> Any:
        while True:
            sum(range(1000))


class SpinsInAThread:
    async def predict(self, inputs: Any) -> Any:
        await asyncio.to_thread(Spins.predict, self, inputs)  # type: ignore[arg-type]


@pytest.mark.realtime
@pytest.mark.parametrize("model", [Spins, SpinsInAThread])
async def test_sync_code_is_interrupted_where_that_is_set(serve, ask, model) -> None:
    app = serve(model, interrupt_threads="on")

    await ask(app, headers={"x-request-id": "r"}, leaves_after_seconds=0.1).run()
    await app.runner.in_flight.wait_idle()

    account = app.runner.find("r")
    assert (account.phase, account.reason) == ("cancelled", "client_disconnect")
    assert account.proved_after < 1
