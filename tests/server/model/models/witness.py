"""Model classes that write into a file, which the test reads, what of them began and what ended.

The file is ``inputs["log"]``; ``inputs["at"]`` is the moment at which they stay for a minute.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import StreamingResponse

from streamkit import current_token

LONG = 60.0  # seconds
CHUNKS = 10_000
PAUSE = 0.005  # seconds between two chunks


def note(inputs: dict[str, Any], word: str) -> None:
    line = f"{word} {time.monotonic()}\n".encode()  # noqa: TID251 - compared with the test's
    log = os.open(inputs["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)
    os.close(log)


@contextmanager
def noted(inputs: dict[str, Any]) -> Iterator[None]:
    note(inputs, "began")
    try:
        yield
    finally:
        note(inputs, "ended")


async def stay(inputs: dict[str, Any], moment: str) -> None:
    if inputs["at"] == moment:
        note(inputs, "there")
        await anyio.sleep(LONG)


def stay_in_thread(inputs: dict[str, Any], moment: str) -> None:
    if inputs["at"] == moment:
        note(inputs, "there")
        current_token().wait_in_thread(LONG)
        current_token().raise_if_cancelled()


async def chunks(inputs: dict[str, Any]) -> AsyncIterator[str]:
    with noted(inputs):
        await stay(inputs, "first chunk")
        yield "chunk "
        await stay(inputs, "second chunk")
        if inputs["at"] == "between":
            note(inputs, "there")
            for _ in range(CHUNKS):
                await anyio.sleep(PAUSE)
                yield "chunk "


def chunks_in_thread(inputs: dict[str, Any]) -> Iterator[str]:
    with noted(inputs):
        stay_in_thread(inputs, "first chunk")
        yield "chunk "
        stay_in_thread(inputs, "second chunk")
        if inputs["at"] == "between":
            note(inputs, "there")
            for _ in range(CHUNKS):
                current_token().wait_in_thread(PAUSE)
                yield "chunk "


class Coroutines:
    """Values; the methods that are no stage hold no slot."""

    async def preprocess(self, inputs: Any) -> Any:
        return await self.work(inputs, "preprocess")

    async def predict(self, inputs: Any) -> Any:
        return await self.work(inputs, "predict")

    async def postprocess(self, inputs: Any) -> Any:
        if inputs["at"].startswith("response"):
            return StreamingResponse(
                chunks({**inputs, "at": inputs["at"].removeprefix("response ")})
            )
        return await self.work(inputs, "postprocess")

    async def completions(self, inputs: Any) -> Any:
        return await self.work(inputs, "completions")

    def embeddings(self, inputs: Any) -> Any:
        with noted(inputs):
            stay_in_thread(inputs, "embeddings")
            return "value"

    async def messages(self, inputs: Any) -> Any:
        return await asyncio.to_thread(Functions().work, inputs, "messages")

    async def responses(self, inputs: Any) -> Any:
        return EventSourceResponse(chunks(inputs))

    async def work(self, inputs: Any, stage: str) -> Any:
        with noted(inputs):
            await stay(inputs, stage)
            return inputs


class Functions:
    """The same in threads; they ask their token."""

    def preprocess(self, inputs: Any) -> Any:
        return self.work(inputs, "preprocess")

    def predict(self, inputs: Any) -> Any:
        return self.work(inputs, "predict")

    def postprocess(self, inputs: Any) -> Any:
        return self.work(inputs, "postprocess")

    def work(self, inputs: Any, stage: str) -> Any:
        with noted(inputs):
            stay_in_thread(inputs, stage)
            return inputs


class AsyncGenerators:
    def predict(self, inputs: Any) -> Any:
        return chunks(inputs)

    async def chat_completions(self, inputs: Any) -> AsyncIterator[str]:
        async for chunk in chunks(inputs):
            yield chunk

    async def responses(self, inputs: Any, request: Request) -> AsyncIterator[str]:
        """As Truss's documentation has it."""
        with noted(inputs):
            yield "chunk "
            note(inputs, "there")
            for _ in range(CHUNKS if inputs["at"] == "asking" else 0):
                if await request.is_disconnected():
                    return
                await anyio.sleep(PAUSE)


class Generators:
    def predict(self, inputs: Any) -> Iterator[str]:
        yield from chunks_in_thread(inputs)

    def messages(self, inputs: Any) -> Iterator[str]:
        yield from chunks_in_thread(inputs)

    def responses(self, inputs: Any, request: Request) -> Iterator[str]:
        """As Truss's documentation has it."""
        with noted(inputs):
            yield "chunk "
            note(inputs, "there")
            for _ in range(CHUNKS if inputs["at"] == "asking" else 0):
                if anyio.from_thread.run(request.is_disconnected):
                    return
                time.sleep(PAUSE)  # noqa: TID251 - as a model would
