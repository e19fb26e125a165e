"""ASGI by hand, the limit: one send a token, and a task that waits for the disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import parse_qsl

from benchmarks.apps import source
from benchmarks.apps.tokens import framed

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
EVENTS = [(b"content-type", b"text/event-stream")]
JSON = [(b"content-type", b"application/json")]


async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    shape = scope["path"].rpartition("/")[2]
    query = dict(parse_qsl(scope["query_string"].decode()))
    row, n = int(query["row"]), int(query["n"])
    if shape == "call":  # over before anybody can leave: the limit of a request
        await answer(source.call(row, n), send)
    elif shape in source.CALLS:
        await until_gone(answer(source.CALLS[shape](row, n), send), receive)
    else:
        await until_gone(stream(source.STREAMS[shape](row, n), send), receive)


async def until_gone(work: Awaitable[None], receive: Receive) -> None:
    """Cancel the work when its client leaves: what anybody has to do who does it by hand."""
    task = asyncio.current_task()
    listener = asyncio.ensure_future(listen(receive, task))
    with suppress(asyncio.CancelledError):
        await work
    listener.cancel()


async def listen(receive: Receive, task: asyncio.Task[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


async def stream(tokens: AsyncGenerator[str], send: Send) -> None:
    async with aclosing(tokens):
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        async for token in tokens:
            data = framed(token).encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def answer(value: Awaitable[str], send: Send) -> None:
    body = b'{"text":"%b"}' % (await value).encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [*JSON, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
