"""sse-starlette's EventSourceResponse."""

from __future__ import annotations

from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.apps import source

GENERATORS = {**source.STREAMS, **source.SYNC_STREAMS}


async def stream(request: Request) -> Response:
    make = GENERATORS[request.path_params["shape"]]
    query = request.query_params
    return EventSourceResponse(make(int(query["row"]), int(query["n"])))


app = Starlette(routes=[Route("/streams/{shape}", stream)])
