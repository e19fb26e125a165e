"""Starlette's StreamingResponse: it frames nothing, so its sources give framed tokens."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from benchmarks.apps import source
from benchmarks.apps.tokens import TOKEN, framed

EVENT = framed(TOKEN)
GENERATORS = {**source.STREAMS, **source.SYNC_STREAMS}


async def stream(request: Request) -> Response:
    make = GENERATORS[request.path_params["shape"]]
    query = request.query_params
    tokens = make(int(query["row"]), int(query["n"]), EVENT)
    return StreamingResponse(tokens, media_type="text/event-stream")


async def answer(request: Request) -> Response:
    query = request.query_params
    work = source.CALLS[request.path_params["shape"]](int(query["row"]), int(query["n"]))
    return JSONResponse({"text": await work})


app = Starlette(
    routes=[Route("/streams/{shape}", stream), Route("/calls/{shape}", answer, methods=["POST"])]
)
