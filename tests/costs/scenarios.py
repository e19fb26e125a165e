"""What is counted: a scenario does something for so many units, inside the counter's block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from starlette.types import ASGIApp

from streamkit.engines import FakeEngine
from streamkit.server.app import Application, create_app
from streamkit.server.settings import Settings
from streamkit.testing import Lifespan, VirtualTimeLoop, wait_all_tasks_blocked

from . import apps
from .counting import Counter, Counts
from .wire import SocketWire, Wire

Scenario = Callable[[Counter, int], Awaitable[None]]

MODEL = Path(__file__).parent / "echo_model.py"
EVENTS = b"text/event-stream"
SETTLED = 1.0  # virtual seconds in which everything that a cancel started has ended
LONG = 100_000  # tokens, or words


def cost(scenario: Scenario, units: int = 64) -> Counts:
    """What one unit costs, whatever comes on top of all units together."""

    async def counted(times: int) -> Counts:
        counter = Counter()
        await scenario(counter, times)
        return counter.counts

    async def main() -> Counts:
        await counted(2 * units)  # fills caches, makes Python specialise
        once = await counted(units)
        return (await counted(2 * units) - once) / units

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


# -- tokens --------------------------------------------------------------------------------------


def tokens(
    app_over: Callable[[Callable[[], apps.Items]], ASGIApp], source: Callable[[int], apps.Items]
) -> Scenario:
    async def scenario(counter: Counter, count: int) -> None:
        wire = Wire(app_over(lambda: source(count)))
        with counter():
            await wire.run()
        assert wire.size >= count * len(apps.TOKEN)

    return scenario


async def engine_tokens(counter: Counter, count: int) -> None:
    """Through `POST /generate` of what `streamkit serve` runs."""
    async with engine_app() as app:
        body = b'{"prompt": "a b c", "stream": true, "max_tokens": %d}' % count
        wire = Wire(app, path="/generate", body=body, accept=EVENTS)
        with counter():
            await wire.run()
        assert wire.size > count * len("data: ")


async def model_tokens(counter: Counter, count: int) -> None:
    """Of a model class, none of which is waited for."""
    app = create_app(Settings(), target="tests.costs.echo_model:StreamingModel")
    async with Lifespan(app):
        await anyio.sleep(SETTLED)
        wire = Wire(app, path="/v1/models/model:predict", body=b'{"tokens": %d}' % count)
        with counter():
            await wire.run()
        assert wire.size == count * len("tok ")


# -- requests ------------------------------------------------------------------------------------


def requests(app: ASGIApp, **request: Any) -> Scenario:
    async def scenario(counter: Counter, count: int) -> None:
        await _ask(app, counter, count, **request)

    return scenario


def predictions(class_name: str) -> Scenario:
    async def scenario(counter: Counter, count: int) -> None:
        app = create_app(Settings(), target=f"tests.costs.echo_model:{class_name}")
        async with Lifespan(app):
            await anyio.sleep(SETTLED)
            await _ask(app, counter, count, path="/v1/models/model:predict", body=b'{"x": [1, 2]}')

    return scenario


async def engine_requests(counter: Counter, count: int) -> None:
    """Not streaming, one token each, through `POST /generate`."""
    async with engine_app() as app:
        body = b'{"prompt": "a b c", "max_tokens": 1}'
        await _ask(app, counter, count, path="/generate", body=body)


async def _ask(app: ASGIApp, counter: Counter, count: int, **request: Any) -> None:
    wires = [Wire(app, **request) for _ in range(count)]
    loop = asyncio.get_running_loop()
    with counter():
        for wire in wires:
            await loop.create_task(wire.run())  # as servers do
            await wait_all_tasks_blocked()
    assert all(wire.chunks for wire in wires)


def messages(app: ASGIApp) -> Scenario:
    async def scenario(counter: Counter, count: int) -> None:
        wire = SocketWire(app, count)
        with counter():
            await wire.run()
        assert wire.answers == count

    return scenario


@asynccontextmanager
async def engine_app(**options: Any) -> AsyncIterator[Application]:
    app = create_app(Settings(), engine=FakeEngine(**options))
    try:
        yield app
    finally:
        await app.runner.aclose()
