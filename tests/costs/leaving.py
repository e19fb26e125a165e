"""Clients that leave, one in each phase, and what the app has to do then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.types import ASGIApp

from streamkit.testing import wait_all_tasks_blocked

from . import apps
from .counting import Counter
from .scenarios import EVENTS, Scenario, engine_app
from .wire import Wire

SETTLED = 1.0  # virtual seconds; what a cancel starts has ended then
LONG_PROMPT = "w " * 8_000  # 1,000 steps of prefill, 20 s


class Told:
    """An engine that only counts how often it was told to abort."""

    def __init__(self) -> None:
        self.aborts = 0

    def abort_for(self, token: object, cancellation: object) -> None:
        self.aborts += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An app in which a request can be left.

    Attributes:
        app: The app.
        aborts: How often its engine was told to abort.
        request: What the request is like.
        reached: Returns when the request has come to its phase.
    """

    app: ASGIApp
    aborts: Callable[[], int]
    request: dict[str, Any]
    reached: Callable[[Wire], Awaitable[object]]


Stage = Callable[[], AbstractAsyncContextManager[Scene]]


def decorated(
    app_over: Callable[[Any, Any], ASGIApp],
    work: Any,
    reached: Callable[[Wire], Awaitable[object]],
) -> Stage:
    """An app around `@cancellable(engine)`."""

    @asynccontextmanager
    async def stage() -> AsyncIterator[Scene]:
        engine = Told()
        app = app_over(work, engine)
        yield Scene(app=app, aborts=lambda: engine.aborts, request={}, reached=reached)

    return stage


def served(
    reached: Callable[[Wire], Awaitable[object]],
    *,
    prompt: str = "a b c",
    stream: bool = True,
    busy: bool = False,
) -> Stage:
    """`POST /generate` of what `streamkit serve` runs; ``busy``: its one slot is taken."""

    @asynccontextmanager
    async def stage() -> AsyncIterator[Scene]:
        body = b'{"prompt": "%b", "stream": %b, "max_tokens": 1000}'
        request = {
            "path": "/generate",
            "body": body % (prompt.encode(), b"true" if stream else b"false"),
            "accept": EVENTS,
        }
        async with (
            engine_app(slots=1, prefill_tokens_per_step=8) as app,
            anyio.create_task_group() as others,
        ):
            if busy:
                long = body % (LONG_PROMPT.encode(), b"false")
                others.start_soon(Wire(app, path="/generate", body=long).run)
                await anyio.sleep(0.05)
            told = app.runner.served.log
            yield Scene(
                app=app,
                aborts=lambda: sum(record.aborts for record in told.requests()),
                request=request,
                reached=reached,
            )
            others.cancel_scope.cancel()

    return stage


async def _first_chunk(wire: Wire) -> None:
    await wire.wait_chunk(1)


async def _waits(wire: Wire) -> None:
    await wait_all_tasks_blocked()


async def _in_the_queue(wire: Wire) -> None:
    await anyio.sleep(0.05)


async def _never() -> str:
    await anyio.sleep_forever()
    return ""


STAGES: dict[str, Stage] = {
    "decode": decorated(apps.event_stream, apps.first_then_silence, _first_chunk),
    "prefill": decorated(apps.event_stream, apps.silence, _waits),
    "not_streaming": decorated(apps.coroutine_endpoint, _never, _waits),
    "engine_decode": served(_first_chunk),
    "engine_prefill": served(_waits, prompt=LONG_PROMPT),
    "engine_not_streaming": served(_in_the_queue, stream=False),
    "engine_queued": served(_in_the_queue, busy=True),
}


def cancels(stage: Stage) -> Scenario:
    """Count from the turn in which the client leaves until all has settled."""

    async def scenario(counter: Counter, count: int) -> None:
        async with stage() as scene:
            for _ in range(count):
                await _leave(scene, counter)
            assert scene.aborts() == count

    return scenario


async def _leave(scene: Scene, counter: Counter) -> None:
    wire = Wire(scene.app, **scene.request)
    async with anyio.create_task_group() as server:
        server.start_soon(wire.run)
        await scene.reached(wire)
        with counter():
            wire.leave()
            await anyio.sleep(SETTLED)


def quiet(stage: Stage) -> Scenario:
    """The same time on the same stage, in which nobody leaves."""

    async def scenario(counter: Counter, count: int) -> None:
        async with stage():
            for _ in range(count):
                with counter():
                    await anyio.sleep(SETTLED)

    return scenario
