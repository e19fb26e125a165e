"""The fake engine behind a server that never tells it that a client left.

As Truss does it: a task of its own takes the tokens from the engine, into a queue without a bound,
and the response reads the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from benchmarks.apps.tokens import framed
from streamkit.engines import FakeEngine

engine = FakeEngine(slots=50, step_ms=10)
producers: set[asyncio.Task[None]] = set()
Queue = asyncio.Queue[str | None]


async def produce(queue: Queue, prompt: str, max_tokens: int) -> None:
    async for chunk in engine.generate(prompt, max_tokens=max_tokens):
        queue.put_nowait(chunk.text)
    queue.put_nowait(None)


async def consume(queue: Queue) -> AsyncGenerator[str]:
    while (text := await queue.get()) is not None:
        yield framed(text)
    yield "event: done\r\n" + framed("{}")


async def generate(request: Request) -> Response:
    asked = await request.json()
    queue = Queue()
    task = asyncio.ensure_future(produce(queue, asked["prompt"], asked["max_tokens"]))
    producers.add(task)
    task.add_done_callback(producers.discard)
    return StreamingResponse(consume(queue), media_type="text/event-stream")


async def books(_: Request) -> Response:
    found = engine.statistics()
    return JSONResponse({name: getattr(found, name) for name in ("running", "queued", "tokens")})


app = Starlette(routes=[Route("/generate", generate, methods=["POST"]), Route("/v1/engine", books)])
