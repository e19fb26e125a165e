"""A client that leaves, a server that cancels, in each turn of the loop: the books stay clean."""

import anyio.lowlevel
import pytest
from sse_starlette import EventSourceResponse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from streamkit._core import Reason, held, wait_held
from streamkit.asgi import ByteStream, CancellationMiddleware, EventStream
from streamkit.engines import FakeEngine
from streamkit.streams import cancellable
from streamkit.testing import Exchange, every_moment

TOKENS = 3


class Scene:
    """One app over one engine of one slot, and what was seen of each request."""

    def __init__(self, kind: str, server: str) -> None:
        self.kind = kind
        self.server = server
        self.engine = FakeEngine(slots=1, step_ms=10)
        self.aborts: list[Reason] = []
        self.entered = self.closed = self.answered = 0
        self.app = CancellationMiddleware(self.serve)
        self.exchange: Exchange | None = None

    async def serve(self, scope, receive, send) -> None:
        request = Request(scope, receive, send)
        response = await self.endpoint(request)
        await response(scope, receive, send)

    async def endpoint(self, request: Request) -> Response:
        try:
            prompt = (await request.json())["prompt"]
        except ClientDisconnect:
            return PlainTextResponse("nobody reads it")
        wrap = cancellable(self.engine, on_cancel=lambda c: self.aborts.append(c.reason))
        if self.kind == "coroutine":
            return PlainTextResponse(await wrap(self.whole)(prompt))
        responses = {
            "events": EventStream,
            "bytes": ByteStream,
            "starlette": StreamingResponse,
            "sse-starlette": EventSourceResponse,
        }
        return responses[self.kind](wrap(self.generate)(prompt))

    async def generate(self, prompt: str):
        self.entered += 1
        try:
            async for chunk in self.engine.generate(prompt, max_tokens=TOKENS):
                yield chunk.text
        finally:
            self.closed += 1

    async def whole(self, prompt: str) -> str:
        self.entered += 1
        try:
            return "".join([c.text async for c in self.engine.generate(prompt, max_tokens=TOKENS)])
        finally:
            self.closed += 1

    async def run(self) -> None:
        self.exchange = Exchange(
            self.app, json={"prompt": "one two"}, server=self.server, headers={"accept": "*/*"}
        )
        self.aborts.clear()
        self.entered = self.closed = 0
        await self.exchange.run()

    async def check(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        await wait_held(5)
        await (
            anyio.lowlevel.checkpoint()
        )  # what was cancelled with the response ends in the same turn

        assert held() == []
        assert not self.app.live
        assert self.closed == self.entered
        assert len(self.aborts) <= 1
        if self.aborts and exchange.completed:  # then the answer says that it is none
            assert exchange.status != 200 or b"event: error" in exchange.data
        statistics = self.engine.statistics()
        assert (statistics.running, statistics.queued, statistics.quarantined) == (0, 0, 0)
        if self.entered and not self.aborts and exchange.outcome == "returned":
            assert exchange.completed or exchange.left_at is not None
        canary = [c async for c in self.engine.generate("a", max_tokens=1)]
        assert len(canary) == 1


KINDS = ["events", "bytes", "starlette", "sse-starlette", "coroutine"]


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian", "standard"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_leaves_in_any_turn_of_the_loop_leaves_clean_books(kind, server):
    scene = Scene(kind, server)

    report = await every_moment(
        scene.run, lambda: scene.exchange and scene.exchange.leave(), check=scene.check
    )

    assert report.runs > 10


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_cancels_the_task_in_any_turn_leaves_clean_books(kind):
    scene = Scene(kind, "uvicorn")

    report = await every_moment(
        scene.run, lambda: scene.exchange and scene.exchange.cancel(), check=scene.check
    )

    assert report.runs > 10


@pytest.mark.parametrize("reason", [Reason.DEADLINE, Reason.REQUESTED])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancel_for_any_reason_in_any_turn_leaves_clean_books(kind, reason):
    scene = Scene(kind, "uvicorn")

    report = await every_moment(scene.run, lambda: scene.app.cancel_all(reason), check=scene.check)

    assert report.runs > 10


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_stops_reading_and_leaves_in_any_turn_leaves_clean_books(kind):
    scene = Scene(kind, "uvicorn")

    def act() -> None:
        if scene.exchange is not None:
            scene.exchange.stop_reading()
            scene.exchange.leave()

    await every_moment(scene.run, act, check=scene.check)
