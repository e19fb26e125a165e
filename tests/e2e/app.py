"""The app under test: every kind of endpoint over fake engines, and control routes beside them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
from fastapi import FastAPI
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from streamkit import cancellable
from streamkit._core import token_of
from streamkit.asgi import ByteStream, CancellationMiddleware, EventStream
from streamkit.engines import GenerationRequest
from tests.e2e.witness import ENGINES, WITNESSES, Witness, books, is_idle, witness_of

ENDLESS = 100_000  # tokens; nobody waits for the end of it
BLOCKED = 0.1  # seconds; a send() that takes longer waits for its client
DRAIN_GRACE = float(os.environ.get("E2E_DRAIN_GRACE", "25"))
HEARTBEAT = 0.2
SETTLED = 2.0  # seconds within which everything that was told to end has ended


def _witness(request: Request) -> Witness:
    witness = witness_of(request.query_params["id"])
    witness.token = token_of(request)
    return witness


def _generate(request: Request) -> AsyncIterator[str]:
    witness, query = _witness(request), request.query_params
    engine = ENGINES[query.get("engine", "fast")]
    wanted = GenerationRequest(
        prompt="word " * int(query.get("words", 1)),
        max_tokens=int(query.get("tokens", ENDLESS)),
    )

    @cancellable(engine, on_cancel=witness.cancelled)
    async def generate() -> AsyncIterator[str]:
        witness.opened += 1
        try:
            async with aclosing(witness.open(engine, wanted)) as generation:
                async for chunk in generation:
                    witness.yielded += 1
                    yield chunk.text
        finally:
            witness.closed += 1
            witness.changed()

    return generate()


# -- endpoints -----------------------------------------------------------------------------------


async def events(request: Request) -> Response:
    beat = HEARTBEAT if "heartbeat" in request.query_params else None
    return EventStream(_generate(request), heartbeat=beat)


async def chunks(request: Request) -> Response:
    return ByteStream(_generate(request))


async def starlette(request: Request) -> Response:
    return StreamingResponse(_generate(request))


async def sse_starlette(request: Request) -> Response:
    return EventSourceResponse(_generate(request))


@cancellable
async def call(request: Request) -> Response:
    return JSONResponse({"text": "".join([text async for text in _generate(request)])})


async def upload(request: Request) -> Response:
    witness = _witness(request)
    witness.mark("endpoint")
    body = b""
    async for piece in request.stream():
        body += piece
        witness.mark("body")
    witness.notes.append(len(body))
    return EventStream(_generate(request), heartbeat=None)


async def polite(request: Request) -> Response:
    """Asks whether the client is there before it reads the body, as many apps do."""
    witness = _witness(request)
    asked = [await request.is_disconnected() for _ in range(5)]
    witness.mark("asked")
    body = await request.body()
    return JSONResponse({"asked": asked, "sha256": hashlib.sha256(body).hexdigest()})


async def two_receivers(request: Request) -> Response:
    """Never reads the body; Starlette's listener and a task of our own both park on receive()."""
    witness = _witness(request)

    async def park() -> None:
        message = await request.receive()
        witness.notes.append(message["type"])

    async def stream() -> AsyncIterator[str]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(park)
            tasks.start_soon(park)
            async for text in _generate(request):
                yield text
            tasks.cancel_scope.cancel()

    return StreamingResponse(stream())


async def thread(request: Request) -> Response:
    """A sync generator, which works between its yields."""
    witness = _witness(request)
    loop = asyncio.get_running_loop()
    tokens = int(request.query_params.get("tokens", ENDLESS))

    @cancellable(on_cancel=witness.cancelled)
    def generate() -> Iterator[str]:
        witness.opened += 1
        try:
            for number in range(tokens):
                time.sleep(0.005)  # noqa: TID251 - works, in a thread
                loop.call_soon_threadsafe(witness.mark, "decode")
                witness.yielded += 1
                yield f"{number} "
        finally:
            witness.closed += 1
            loop.call_soon_threadsafe(witness.changed)

    return ByteStream(generate())


async def flood(request: Request) -> Response:
    """More than the kernel holds for a client that reads nothing."""
    witness = _witness(request)

    @cancellable(on_cancel=witness.cancelled)
    async def generate() -> AsyncIterator[bytes]:
        witness.opened += 1
        try:
            for _ in range(1_000):
                # As any engine does. Without it, all of this would go into nothing within 30 ms of
                # the client's leaving on granian, before its word comes from another thread.
                await anyio.sleep(0.001)
                witness.yielded += 1
                yield b"x" * 262_144
        finally:
            witness.closed += 1
            witness.changed()

    return ByteStream(generate())


# -- the app, and what lies around it ------------------------------------------------------------

fastapi = FastAPI()


@fastapi.get("/stream")
async def fastapi_stream(request: Request) -> StreamingResponse:
    return StreamingResponse(_generate(request), media_type="text/plain")


class PassOn(BaseHTTPMiddleware):
    """Does nothing but what BaseHTTPMiddleware does: it hides the client's leaving."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        return await call_next(request)


async def base_stream(request: Request) -> Response:
    witness = _witness(request)
    witness.notes.append(await request.is_disconnected())
    return StreamingResponse(_generate(request))


ROUTES = [
    Route("/events", events, methods=["GET", "POST"]),
    Route("/bytes", chunks),
    Route("/starlette", starlette),
    Route("/sse-starlette", sse_starlette),
    Route("/call", call),
    Route("/upload", upload, methods=["POST"]),
    Route("/polite", polite, methods=["POST"]),
    Route("/two-receivers", two_receivers, methods=["POST"]),
    Route("/thread", thread),
    Route("/flood", flood),
    Mount("/fastapi", fastapi),
    Mount(
        "/base", Starlette(routes=[Route("/stream", base_stream)], middleware=[Middleware(PassOn)])
    ),
]

inner = Starlette(routes=ROUTES)
patient = CancellationMiddleware(inner, drain_grace=DRAIN_GRACE)
hasty = CancellationMiddleware(inner, write_stall=0.5, drain_grace=None)

BEHIND = {"/hasty": hasty, "/bare": inner}  # by prefix; all else is behind the patient one


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """What the server calls. ``receive`` goes through untouched: the middleware is outermost."""
    if scope["type"] == "lifespan":
        await patient(scope, receive, _reporting(send))
    elif scope["path"].startswith("/control/"):
        await _control(scope, receive, send)
    else:
        await _observe(scope, receive, send)


async def _observe(scope: Scope, receive: Receive, send: Send) -> None:
    witness = witness_of(parse_qs(scope["query_string"].decode())["id"][0])
    prefix = next((p for p in BEHIND if scope["path"].startswith(p)), "")
    if prefix:
        scope = {**scope, "path": scope["path"].removeprefix(prefix), "raw_path": None}
    witness.begun += 1
    witness.mark("begun")
    try:
        await BEHIND.get(prefix, patient)(scope, receive, _noting(witness, send))
    except BaseException as error:
        witness.error = repr(error)
        raise
    finally:
        witness.returned += 1
        witness.mark("returned")


def _noting(witness: Witness, send: Send) -> Send:
    loop = asyncio.get_running_loop()

    async def noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            witness.status = message["status"]
        elif not message.get("more_body", False):
            witness.complete = True
        timer = loop.call_later(BLOCKED, witness.mark, "blocked")
        try:
            await send(message)
        finally:
            timer.cancel()

    return noted


def _reporting(send: Send) -> Send:
    """Leave the books in a file at the end of the lifespan: nobody can be asked afterwards."""

    async def reporting(message: Message) -> None:
        if message["type"] == "lifespan.shutdown.complete" and "E2E_REPORT" in os.environ:
            reports = {witness.id: witness.report() for witness in WITNESSES.values()}
            Path(os.environ["E2E_REPORT"]).write_text(json.dumps(reports))  # noqa: ASYNC240
        await send(message)

    return reporting


# -- control -------------------------------------------------------------------------------------


async def ended(request: Request) -> Response:
    """Answer when that request is over and its engine has stopped."""
    return JSONResponse(await witness_of(request.path_params["id"]).wait_ended())


async def reached(request: Request) -> Response:
    """Answer when that request has come so far."""
    witness, mark = witness_of(request.path_params["id"]), request.query_params["mark"]
    return JSONResponse(await witness.wait_for(lambda: mark in witness.marks))


async def show_books(_: Request) -> Response:
    """Answer when nothing is going on any more, or with what is left after two seconds."""
    account = books(_live())
    with anyio.move_on_after(SETTLED):
        while not is_idle(account):
            await anyio.sleep(0.005)
            account = books(_live())
    return JSONResponse({"idle": is_idle(account), **account})


async def show_all(_: Request) -> Response:
    return JSONResponse({id_: await witness.wait_ended() for id_, witness in WITNESSES.items()})


def _live() -> int:
    return len(patient.live) + len(hasty.live)


_control = Starlette(
    routes=[
        Route("/control/ended/{id}", ended),
        Route("/control/reached/{id}", reached),
        Route("/control/books", show_books),
        Route("/control/all", show_all),
    ]
)
