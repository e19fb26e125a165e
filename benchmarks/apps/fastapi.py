"""FastAPI's own server-sent events, and its JSON endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

from benchmarks.apps import source

app = FastAPI()


@app.get("/streams/ready_sync", response_class=EventSourceResponse)
def ready_sync(row: int, n: int) -> Iterable[ServerSentEvent]:
    for token in source.ready_sync(row, n):
        yield ServerSentEvent(raw_data=token)


@app.get("/streams/{shape}", response_class=EventSourceResponse)
async def stream(shape: str, row: int, n: int) -> AsyncIterable[ServerSentEvent]:
    async for token in source.STREAMS[shape](row, n):
        yield ServerSentEvent(raw_data=token)


@app.post("/calls/{shape}")
async def answer(shape: str, row: int, n: int) -> dict[str, str]:
    return {"text": await source.CALLS[shape](row, n)}


@app.post("/predict")
async def predict(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": 2 * inputs["n"]}


@app.post("/predict_sync")
def predict_sync(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": 2 * inputs["n"]}
