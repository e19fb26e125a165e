"""A model class of each kind; each counts in `running` what of it has begun and not ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from streamkit import current_token

CHUNKS = ["a", "b", "c"]


class Counted:
    """Counts what runs: on the loop and on threads, which take turns at the interpreter."""

    def __init__(self) -> None:
        self.running = 0
        self.entered = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        self.running += 1
        self.entered += 1
        try:
            yield
        finally:
            self.running -= 1


class Coroutine(Counted):
    async def predict(self, inputs: Any) -> Any:
        with self.inside():
            await anyio.sleep(0.1)
            return ["value"]


class AsyncGenerator(Counted):
    async def predict(self, inputs: Any) -> AsyncIterator[str]:
        with self.inside():
            for chunk in CHUNKS:
                await anyio.sleep(0.1)
                yield chunk


class Function(Counted):
    def predict(self, inputs: Any) -> Any:
        with self.inside():
            for _ in CHUNKS:
                current_token().raise_if_cancelled()
            return ["value"]


class Generator(Counted):
    def predict(self, inputs: Any) -> Iterator[str]:
        with self.inside():
            yield from CHUNKS


class ReturnsAsyncIterator(Counted):
    """Engines return such objects: an iterator class, no generator."""

    async def predict(self, inputs: Any) -> Any:
        return Chunks(self)


class Chunks:
    def __init__(self, counted: Counted) -> None:
        self._items = AsyncGenerator.predict(counted, None)  # type: ignore[arg-type]

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await anext(self._items)

    async def aclose(self) -> None:
        await self._items.aclose()


class FunctionReturnsGenerator(Counted):
    def predict(self, inputs: Any) -> Any:
        return Generator.predict(self, inputs)  # type: ignore[arg-type]


class AsyncStages(Counted):
    async def preprocess(self, inputs: Any) -> Any:
        with self.inside():
            await anyio.sleep(0.1)
            return inputs

    async def predict(self, inputs: Any) -> Any:
        with self.inside():
            await anyio.sleep(0.1)
            return inputs

    async def postprocess(self, inputs: Any) -> Any:
        with self.inside():
            await anyio.sleep(0.1)
            return ["value"]


class SyncStages(Counted):
    def preprocess(self, inputs: Any) -> Any:
        with self.inside():
            return inputs

    def predict(self, inputs: Any) -> Any:
        with self.inside():
            return inputs

    def postprocess(self, inputs: Any) -> Any:
        with self.inside():
            return ["value"]


class GeneratorPreprocess(Counted):
    async def preprocess(self, inputs: Any) -> AsyncIterator[str]:
        with self.inside():
            for chunk in [*CHUNKS, "is not read"]:
                await anyio.sleep(0.1)
                yield chunk

    async def predict(self, inputs: Any) -> AsyncIterator[str]:
        with self.inside():
            async for chunk in inputs:
                yield chunk
                if chunk == CHUNKS[-1]:
                    return


class SyncGeneratorPreprocess(Counted):
    def preprocess(self, inputs: Any) -> Iterator[str]:
        with self.inside():
            yield from [*CHUNKS, "is not read"]

    def predict(self, inputs: Any) -> Iterator[str]:
        with self.inside():
            for chunk, _ in zip(inputs, CHUNKS, strict=False):
                yield chunk


class GroupAndThreads(Counted):
    """A task group is open across the yields that a stream reads; each chunk takes a thread."""

    async def preprocess(self, inputs: Any) -> AsyncIterator[str]:
        with self.inside():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                for chunk in CHUNKS:
                    yield chunk
                tasks.cancel_scope.cancel()

    async def predict(self, inputs: AsyncIterator[str]) -> AsyncIterator[str]:
        with self.inside():
            async for chunk in inputs:
                yield await asyncio.to_thread(self.step, chunk)

    def step(self, chunk: str) -> str:
        with self.inside():
            return chunk


class GeneratorPostprocess(Counted):
    async def predict(self, inputs: Any) -> Any:
        with self.inside():
            await anyio.sleep(0.1)
            return CHUNKS

    async def postprocess(self, inputs: Any) -> AsyncIterator[str]:
        with self.inside():
            for chunk in inputs:
                await anyio.sleep(0.1)
                yield chunk


KINDS = {
    kind.__name__: kind
    for kind in (
        Coroutine,
        AsyncGenerator,
        Function,
        Generator,
        ReturnsAsyncIterator,
        FunctionReturnsGenerator,
        AsyncStages,
        SyncStages,
        GeneratorPreprocess,
        SyncGeneratorPreprocess,
        GroupAndThreads,
        GeneratorPostprocess,
    )
}
