"""The same engines behind a plain Starlette app, written as such apps are written today.

``python -m streamkit.server.demo._plain JSON`` serves it; see :class:`Manner` for the two ways in
which engines deal with a reader that walks away. Only the ``books`` route is not plain.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from streamkit._core import Phase, hold
from streamkit.engines import FakeEngine, GenerationRequest


class Manner(StrEnum):
    """What an engine does when the iterator over its output is dropped or cancelled."""

    STOPS = "stops"
    """It takes that for an abort, as vLLM does, and streamkit's own adapters."""

    RUNS_ON = "runs on"
    """It has to be told, as TensorRT-LLM, transformers or an engine in a thread of its own have."""


class Plain:
    """The app; it does nothing about clients that leave beyond what Starlette does by itself."""

    def __init__(self, engines: Mapping[str, FakeEngine], manner: Manner) -> None:
        self._engines = engines
        self._manner = manner
        self._phases: dict[str, dict[str, Phase]] = {name: {} for name in engines}

    def app(self, url: str) -> Starlette:
        """The ASGI app; it says on standard output when it is ready."""

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncGenerator[None]:
            sys.stdout.write(f"plain: ready on {url}\n")
            sys.stdout.flush()
            yield
            for engine in self._engines.values():
                await engine.aclose()

        routes = [
            Route("/{engine}/generate", self.generate, methods=["POST"]),
            Route("/{engine}/books", self.books),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    async def generate(self, request: Request) -> Response:
        """Stream an answer, or give it as a whole."""
        params = await request.json()
        chunks = self._chunks(request, params["prompt"], params["max_tokens"])
        if params["stream"]:
            events = (f"data: {text}\n\n" async for text in chunks)
            return StreamingResponse(events, media_type="text/event-stream")
        return JSONResponse({"text": "".join([text async for text in chunks])})

    async def books(self, request: Request) -> Response:
        """The engine's own account of what it computed, and for whom."""
        name = request.path_params["engine"]
        engine = self._engines[name]
        books = engine.statistics()
        requests = {
            request_id: {"phase": phase, "tokens": engine.log.tokens_of(request_id) or 0}
            for request_id, phase in self._phases[name].items()
        }
        return JSONResponse(
            {
                "running": books.running,
                "queued": books.queued,
                "steps": books.steps,
                "tokens": books.tokens,
                "requests": requests,
            }
        )

    def _chunks(self, request: Request, prompt: str, max_tokens: int) -> AsyncIterator[str]:
        name = request.path_params["engine"]
        request_id = request.headers["x-request-id"]
        phases = self._phases[name]

        async def generate() -> AsyncIterator[str]:
            generation = self._engines[name].open(
                GenerationRequest(prompt=prompt, max_tokens=max_tokens),
                request_id=request_id,
                on_phase=lambda phase: phases.__setitem__(request_id, phase),
            )
            async for chunk in generation:
                yield chunk.text

        return generate() if self._manner is Manner.STOPS else _from_elsewhere(generate())

    def __repr__(self) -> str:
        return f"<Plain {', '.join(self._engines)}, an engine that {self._manner}>"


async def _from_elsewhere(source: AsyncIterator[str]) -> AsyncIterator[str]:
    """Read what a task of the engine's own makes; whoever stops reading does not stop it."""
    made = asyncio.Queue[str | None]()  # its bound is the request's max_tokens

    async def make() -> None:
        async for text in source:
            made.put_nowait(text)
        made.put_nowait(None)

    hold(make, name="an engine that is not told", limit=math.inf)
    while (text := await made.get()) is not None:
        yield text


def main(arguments: str) -> None:
    """Serve on a free port of loopback until a signal comes.

    Args:
        arguments: JSON: ``{"manner": …, "engines": {NAME: {OPTION: VALUE}}}``.
    """
    given: dict[str, Any] = json.loads(arguments)
    engines = {name: FakeEngine(**options) for name, options in given["engines"].items()}
    sock = socket.create_server(("127.0.0.1", 0))
    app = Plain(engines, Manner(given["manner"])).app(f"http://127.0.0.1:{sock.getsockname()[1]}")
    config = uvicorn.Config(app, loop="asyncio", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main(sys.argv[1])
