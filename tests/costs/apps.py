"""The apps whose costs are counted, and the same by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from streamkit import cancellable
from streamkit.asgi import ByteStream, CancellationMiddleware, EventStream

TOKEN = " token"
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}

Items = AsyncIterator[str]


async def ready(tokens: int) -> Items:
    """Tokens that are there without waiting."""
    for _ in range(tokens):
        yield TOKEN


async def paced(tokens: int) -> Items:
    """Tokens each of which is waited for, one turn of the loop."""
    for _ in range(tokens):
        await anyio.lowlevel.checkpoint()
        yield TOKEN


async def waited(tokens: int) -> Items:
    """Tokens for which time passes, as an engine's do: none is taken for one at hand."""
    for _ in range(tokens):
        await anyio.sleep(0.001)
        yield TOKEN


async def first_then_silence() -> Items:
    yield TOKEN
    await anyio.sleep_forever()


async def silence() -> Items:
    await anyio.sleep_forever()
    yield TOKEN


# -- by hand -------------------------------------------------------------------------------------


def bare_stream(items: Callable[[], Items]) -> ASGIApp:
    """Server-sent events as they can be sent by hand: one send a token, and nothing else."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        async for item in items():
            data = b"data: %b\r\n\r\n" % item.encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def bare_answer(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await send(HEAD)
    await send({"type": "http.response.body", "body": message["body"] or b"ok"})


# -- with streamkit ------------------------------------------------------------------------------


def responding(make: Callable[[], Response]) -> ASGIApp:
    """An app below the middleware that answers everything with one kind of response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await make()(scope, receive, send)

    return CancellationMiddleware(app)


def event_stream(items: Callable[[], Items], engine: Any = None) -> ASGIApp:
    generate = cancellable(engine)(items)
    return responding(lambda: EventStream(generate()))


def byte_stream(items: Callable[[], Items]) -> ASGIApp:
    generate = cancellable(items)
    return responding(lambda: ByteStream(generate()))


def plain_streaming_response(items: Callable[[], Items]) -> ASGIApp:
    """Starlette's own response around our wrapper: the wrapper is then read item by item."""
    generate = cancellable(items)
    return responding(lambda: StreamingResponse(generate()))


def coroutine_endpoint(work: Callable[[], Awaitable[str]], engine: Any = None) -> ASGIApp:
    """A `@cancellable` coroutine that is given the request, in an app by hand."""

    @cancellable(engine)
    async def endpoint(request: Request) -> str:
        return await work()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        text = await endpoint(Request(scope, receive))
        await send(HEAD)
        await send({"type": "http.response.body", "body": text.encode()})

    return CancellationMiddleware(app)


async def answer_at_once() -> str:
    return "ok"


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


echo_socket = CancellationMiddleware(_echo)
bare_socket = _echo


def fastapi_endpoint(path: str) -> ASGIApp:
    """What the model class of ``echo_model.py`` is, written with FastAPI."""
    app = FastAPI()

    @app.post(path)
    async def predict(inputs: dict[str, Any]) -> Any:
        return inputs

    return app
