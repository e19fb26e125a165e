"""A plain FastAPI app on vLLM, for any ASGI server; the README says what MODEL is."""

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from streamkit import cancellable
from streamkit.asgi import CancellationMiddleware, EventStream
from streamkit.engines import GenerationRequest, Message, VLLMEngine

options = json.loads(os.environ.get("ENGINE_ARGS", "{}"))
engine = VLLMEngine({"model": os.environ["MODEL"], **options})


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    await engine.load()
    yield
    await engine.aclose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(CancellationMiddleware)


class Question(BaseModel):
    text: str
    max_tokens: int = 200

    def request(self) -> GenerationRequest:
        return GenerationRequest(messages=(Message("user", self.text),), max_tokens=self.max_tokens)


@cancellable(engine)
async def answer(question: Question) -> AsyncGenerator[str]:
    async for chunk in engine.open(question.request()):
        yield chunk.text


@app.post("/chat")
async def chat(question: Question) -> EventStream:
    return EventStream(answer(question))


@app.post("/ask")
@cancellable(engine)
async def ask(question: Question) -> dict[str, str]:
    return {"text": "".join([chunk.text async for chunk in engine.open(question.request())])}


@app.get("/engine")
async def books() -> dict[str, Any]:
    statistics = engine.statistics()
    return {} if statistics is None else asdict(statistics)
