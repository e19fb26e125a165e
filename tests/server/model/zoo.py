"""The kinds of model that only a server can run, beside those that its runner can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

from tests.runner.model import models
from tests.runner.model.models import CHUNKS, Counted

CHAT = "/v1/chat/completions"


class Asks(Counted):
    """As Truss's documentation has it."""

    async def predict(self, inputs: Any, request: Request) -> AsyncIterator[str]:
        with self.inside():
            for chunk in CHUNKS:
                await anyio.sleep(0.1)
                if await request.is_disconnected():
                    return
                yield chunk


class RequestOnly(Counted):
    async def predict(self, request: Request) -> Any:
        with self.inside():
            assert await request.body()
            await anyio.sleep(0.1)
            return ["value"]


class StreamingAnswer(Counted):
    async def predict(self, inputs: Any) -> Any:
        with self.inside():
            await anyio.sleep(0.1)
            return StreamingResponse(models.AsyncGenerator.predict(self, inputs))  # type: ignore[arg-type]


class ThreadedStreamingAnswer(Counted):
    def predict(self, inputs: Any) -> Any:
        return StreamingResponse(models.Generator.predict(self, inputs))  # type: ignore[arg-type]


class EventsAnswer(Counted):
    async def predict(self, inputs: Any) -> Any:
        return EventSourceResponse(models.AsyncGenerator.predict(self, inputs))  # type: ignore[arg-type]


class WholeAnswer(Counted):
    async def predict(self, inputs: Any) -> Any:
        with self.inside():
            await anyio.sleep(0.1)
            return JSONResponse(["value"])


class Chat(Counted):
    """No slot, and OpenAI's framing."""

    path = CHAT

    async def predict(self) -> None: ...

    async def chat_completions(self, inputs: Any) -> AsyncIterator[dict[str, str]]:
        with self.inside():
            for chunk in CHUNKS:
                await anyio.sleep(0.1)
                yield {"text": chunk}


class ChatInThread(Counted):
    path = CHAT

    def predict(self) -> None: ...

    def chat_completions(self, inputs: Any) -> Any:
        with self.inside():
            return ["value"]


KINDS: dict[str, type[Counted]] = {
    **models.KINDS,
    **{
        kind.__name__: kind
        for kind in (
            Asks,
            RequestOnly,
            StreamingAnswer,
            ThreadedStreamingAnswer,
            EventsAnswer,
            WholeAnswer,
            Chat,
            ChatInThread,
        )
    },
}
