"""Triton's client and a server behind it, as far as the adapter calls them.

A stream begins when it is asked for, and its iterator is no generator: leaving it cancels nothing.
``cancel()`` ends the whole call, and reading it then raises the event loop's own cancellation; the
server hears of it a little later. One slot; whoever waits for it can be cancelled, too.

Its names are compared with the real client's in tests/real/triton/test_contract.py, where a real
gRPC server takes the place of the one in here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, Self

import anyio
import numpy as np

STEP = 0.02
MODULES = ("grpc", "tritonclient", "tritonclient.grpc", "tritonclient.grpc.aio")


class InferenceServerException(Exception):
    def __init__(self, msg: str, status: str | None = None) -> None:
        super().__init__(msg)
        self._msg = msg
        self._status = status

    def message(self) -> str:
        return self._msg

    def status(self) -> str | None:
        return self._status


class InferInput:
    def __init__(self, name: str, shape: list[int], datatype: str) -> None:
        self._name, self._shape, self._datatype = name, shape, datatype
        self.data: Any = None

    def name(self) -> str:
        return self._name

    def datatype(self) -> str:
        return self._datatype

    def shape(self) -> list[int]:
        return self._shape

    def set_data_from_numpy(self, input_tensor: Any) -> Self:
        assert list(input_tensor.shape) == self._shape
        self.data = input_tensor
        return self


class InferResult:
    def __init__(self, text: str, index: int) -> None:
        self._outputs = {
            "text_output": np.array([text.encode()], dtype=object),
            "sequence_index": np.array([index], dtype=np.int32),
        }

    def as_numpy(self, name: str) -> Any:
        return self._outputs.get(name)


class Server:
    """What the client talks to; everything in it is for tests to look into."""

    def __init__(self) -> None:
        self.models = {"ensemble"}
        self.requests: list[dict[str, Any]] = []
        self.running = 0
        self.steps = 0
        self.cancelled = 0
        self.error: InferenceServerException | None = None
        self.ends_at: int | None = None  # tokens after which an answer ends by itself
        self.slot = anyio.Semaphore(1)

    async def serve(self, values: dict[str, Any], responses: asyncio.Queue[Any]) -> None:
        self.requests.append(values)
        limit = min(values["max_tokens"], self.ends_at or values["max_tokens"])
        choices = values.get("num_return_sequences", 1)
        self.running += 1
        try:
            async with self.slot:
                await self._generate(limit, choices, responses)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _generate(self, limit: int, choices: int, responses: asyncio.Queue[Any]) -> None:
        for number in range(limit):
            await anyio.sleep(STEP)
            self.steps += 1
            for index in range(choices):
                responses.put_nowait((InferResult(f"w{number} ", index), None))
            if self.error is not None:
                responses.put_nowait((None, self.error))
        responses.put_nowait((InferResult("", 0), None))
        responses.put_nowait(None)


class InferenceServerClient:
    def __init__(self, url: str) -> None:
        self.url = url
        self.server = SERVERS.setdefault(url, Server())
        self.closed = False
        asyncio.get_running_loop()

    async def is_model_ready(self, model_name: str) -> bool:
        if self.url == "nowhere":
            raise InferenceServerException("failed to connect", "StatusCode.UNAVAILABLE")
        return model_name in self.server.models

    def stream_infer(self, inputs_iterator: AsyncIterator[dict[str, Any]]) -> ResponseIterator:
        return ResponseIterator(self.server, inputs_iterator)

    async def close(self) -> None:
        self.closed = True


class ResponseIterator:
    def __init__(self, server: Server, inputs: AsyncIterator[dict[str, Any]]) -> None:
        self._responses: asyncio.Queue[Any] = asyncio.Queue()
        self._cancelled = False
        self._call = asyncio.create_task(self._talk(server, inputs))  # noqa: TID251 - as gRPC does

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[InferResult | None, InferenceServerException | None]:
        if self._cancelled:
            raise asyncio.CancelledError
        try:
            response = await self._responses.get()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._cancelled:
            raise asyncio.CancelledError
        if response is None:
            raise StopAsyncIteration
        return response

    def cancel(self) -> bool:
        self._cancelled = True
        self._responses.put_nowait(None)
        return self._call.cancel()

    async def _talk(self, server: Server, inputs: AsyncIterator[dict[str, Any]]) -> None:
        async for request in inputs:
            values = {one.name(): one.data.flatten().tolist() for one in request["inputs"]}
            single = {name: row[0] if len(row) == 1 else row for name, row in values.items()}
            await server.serve({"model_name": request["model_name"], **single}, self._responses)


SERVERS: dict[str, Server] = {}


def modules() -> dict[str, Any]:
    """Entries of ``sys.modules`` that make it what ``import tritonclient.grpc.aio`` finds."""
    return dict.fromkeys(MODULES, sys.modules[__name__])
