"""A server that speaks OpenAI's API and has one slot: with good manners, bad ones, and broken ones.

Each has a path of its own: ``http://127.0.0.1:PORT/MANNER/v1``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

STEP = 0.002  # seconds
EVENT = "text/event-stream"


class Upstream:
    """The server; it counts what it makes, whoever reads it.

    Attributes:
        steps: Tokens made, for everyone.
        busy: Requests in a slot or waiting for one.
        asked: The body of each request, in order.
        aborted: What was posted to ``/abort``.
        headers: Those of the last request.
    """

    def __init__(self, slots: int = 1) -> None:
        self.port = 0
        self.steps = 0
        self.busy = 0
        self.asked: list[dict[str, Any]] = []
        self.aborted: list[Any] = []
        self.headers: dict[str, str] = {}
        self._slots = slots
        self._free: asyncio.Semaphore | None = None
        self._running: set[asyncio.Task[None]] = set()

    def url(self, manner: str) -> str:
        return f"http://127.0.0.1:{self.port}/{manner}/v1"

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.headers = dict(request.headers)
        manner = request.path_params["manner"]
        if manner in REFUSALS:
            status, content, headers = REFUSALS[manner]
            return Response(content, status, headers)
        if manner == "slow_header":
            await asyncio.sleep(60)  # noqa: TID251 - until the client has had enough
        if manner == "json":
            return JSONResponse({"choices": [{"index": 0, "text": "whole"}]})
        stream = BROKEN[manner]() if manner in BROKEN else self._generate(manner, body)
        return StreamingResponse(stream, media_type=EVENT)

    async def models(self, request: Request) -> Response:
        names = request.path_params["manner"].split("+")
        return JSONResponse({"object": "list", "data": [{"id": name} for name in names]})

    async def abort(self, request: Request) -> Response:
        self.aborted.append(await request.json())
        return JSONResponse({}, 500 if "fails" in request.path_params["manner"] else 200)

    async def _generate(self, manner: str, body: dict[str, Any]) -> AsyncIterator[str]:
        if manner == "runs_on":  # what it makes goes into a queue that the client need not read
            queue: asyncio.Queue[str | None] = asyncio.Queue()
            task = asyncio.create_task(self._make(body, queue))  # noqa: TID251
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            while (event := await queue.get()) is not None:
                yield event
            return
        async for event in self._steps(body):
            yield event

    async def _make(self, body: dict[str, Any], queue: asyncio.Queue[str | None]) -> None:
        async for event in self._steps(body):
            queue.put_nowait(event)
        queue.put_nowait(None)

    async def _steps(self, body: dict[str, Any]) -> AsyncIterator[str]:
        self._free = self._free or asyncio.Semaphore(self._slots)
        self.busy += 1
        try:
            async with self._free:
                for number in range(limit := body.get("max_tokens") or 16):
                    await asyncio.sleep(STEP)  # noqa: TID251
                    self.steps += 1
                    yield text(f"w{number} ", "length" if number + 1 == limit else None)
            yield DONE
        finally:
            self.busy -= 1


def text(piece: str, reason: str | None = None, index: int = 0) -> str:
    return event({"choices": [{"index": index, "text": piece, "finish_reason": reason}]})


def event(value: object) -> str:
    return f"data: {json.dumps(value)}\n\n"


DONE = "data: [DONE]\n\n"
USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}})
ERROR = {"error": {"message": "it is too long", "type": "invalid_request_error", "code": 400}}

REFUSALS: dict[str, tuple[int, str, dict[str, str]]] = {
    "bad_request": (400, json.dumps(ERROR), {}),
    "unprocessable": (422, json.dumps({"detail": [{"loc": ["body"]}]}), {}),
    "unauthorized": (401, json.dumps({"error": "no such key"}), {}),
    "not_found": (404, json.dumps({"object": "error", "message": "no such model"}), {}),
    "too_many": (429, json.dumps({"error": {"message": "slow down"}}), {"retry-after": "7"}),
    "overloaded": (503, "busy", {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}),
    "breaks": (500, "x" * 100_000, {}),
    "bad_gateway": (502, "", {}),
    "redirects": (307, "", {"location": "/listens/v1/completions"}),
}


async def silent() -> AsyncIterator[str]:
    yield text("one ")
    await asyncio.sleep(60)  # noqa: TID251


async def dies() -> AsyncIterator[str]:
    yield text("one ")
    raise ConnectionAbortedError("it died")


def pieces(*all_of_it: str | bytes) -> Any:
    async def stream() -> AsyncIterator[str | bytes]:
        for piece in all_of_it:
            yield piece
            await asyncio.sleep(0)  # noqa: TID251

    return stream


BROKEN = {
    "silent": silent,
    "dies": dies,
    "no_json": pieces(text("one "), "data: {nope\n\n"),
    "no_object": pieces("data: [1]\n\n"),
    "no_choices": pieces(event({"choices": [{"index": "x"}]})),
    "no_utf8": pieces(b"data: \xff\xfe\n\n"),
    "endless": pieces(*[b"data: " + b"x" * 65_536] * 32),
    "no_end": pieces(text("one "), text("two ")),
    "cut_short": pieces(text("one "), DONE),
    "error": pieces(text("one "), event({"error": {"message": "out of memory", "code": 500}})),
    "refuses_late": pieces(event(ERROR), DONE),
    "aborted": pieces(text("one "), text("", "abort"), DONE),
    # These are whole.
    "no_done": pieces(text("one "), text("two", "stop")),
    "tgi": pieces(text("one"), text("", "eos_token"), DONE),
    "merged": pieces(text("one "), text("two three", "stop"), USAGE, DONE),
    "odd_bytes": pieces(
        b": a comment\r\nid: 4\r\nevent: message\r",
        b"\ndata: " + text("\u00e9 ").encode()[6:9],
        *[bytes([each]) for each in text("\u00e9 ").encode()[9:-2]],
        b"\r\n\r\n\n\n",
        (text("end", "stop") + DONE).replace("\n", "\r").encode(),
    ),
    "reasons": pieces(
        event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
        event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}),
        event({"choices": [{"index": 0, "delta": {"content": "so"}}]}),
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        DONE,
    ),
}


@contextmanager
def bad_upstream(slots: int = 1) -> Iterator[Upstream]:
    """Serve it in a thread."""
    upstream = Upstream(slots)
    app = Starlette(
        routes=[
            Route("/{manner}/v1/completions", upstream.answer, methods=["POST"]),
            Route("/{manner}/v1/chat/completions", upstream.answer, methods=["POST"]),
            Route("/{manner}/v1/models", upstream.models),
            Route("/{manner}/abort", upstream.abort, methods=["POST"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    upstream.port = listener.getsockname()[1]
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="bad upstream")
    thread.start()
    try:
        yield upstream
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
