"""The pattern of Truss's documentation: ask ``is_disconnected()`` at each chunk, or each second.

It is what a user writes who reads how to cancel predictions: a check between two chunks of a
stream, and beside a call that does not stream a task that asks once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from benchmarks.apps import source
from benchmarks.apps.tokens import TOKEN, framed

EVENT = framed(TOKEN)
EVERY = 1.0  # seconds


async def checked(request: Request, tokens: AsyncGenerator[str]) -> AsyncGenerator[str]:
    async for token in tokens:
        if await request.is_disconnected():
            return
        yield token


async def stream(request: Request) -> Response:
    make = source.STREAMS[request.path_params["shape"]]
    query = request.query_params
    tokens = make(int(query["row"]), int(query["n"]), EVENT)
    return StreamingResponse(checked(request, tokens), media_type="text/event-stream")


async def answer(request: Request) -> Response:
    query = request.query_params
    make = source.CALLS[request.path_params["shape"]]
    work = asyncio.ensure_future(make(int(query["row"]), int(query["n"])))

    async def poll() -> None:
        while not await request.is_disconnected():  # noqa: ASYNC110 - the pattern is this
            await asyncio.sleep(EVERY)
        work.cancel()

    poller = asyncio.ensure_future(poll())
    with suppress(asyncio.CancelledError):
        await work
    poller.cancel()
    return JSONResponse({"text": "" if work.cancelled() else work.result()})


app = Starlette(
    routes=[Route("/streams/{shape}", stream), Route("/calls/{shape}", answer, methods=["POST"])]
)
