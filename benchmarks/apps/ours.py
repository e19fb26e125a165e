"""streamkit: the decorator, the middleware, and its responses, on nothing but ASGI.

``/events/…`` frames as EventStream does; ``/bytes/…`` is a ByteStream of framed tokens, the same
bytes that Starlette's StreamingResponse is given.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from benchmarks.apps import bare, source
from benchmarks.apps.tokens import TOKEN, framed
from streamkit import cancellable
from streamkit.asgi import ByteStream, CancellationMiddleware, EventStream

EVENT = framed(TOKEN)
GENERATORS: dict[str, Any] = {
    shape: cancellable(make) for shape, make in {**source.STREAMS, **source.SYNC_STREAMS}.items()
}
CALLS: dict[str, Any] = {shape: cancellable(work) for shape, work in source.CALLS.items()}


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    _, kind, shape = scope["path"].split("/")
    query = dict(parse_qsl(scope["query_string"].decode()))
    row, n = int(query["row"]), int(query["n"])
    if kind == "calls":
        await bare.answer(CALLS[shape](row, n), send)
    elif kind == "events":
        await EventStream(GENERATORS[shape](row, n))(scope, receive, send)
    else:
        tokens = GENERATORS[shape](row, n, EVENT)
        stream = ByteStream(tokens, media_type="text/event-stream")
        await stream(scope, receive, send)


_owned = CancellationMiddleware(_app)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await _owned(scope, receive, send)
