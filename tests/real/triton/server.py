"""A gRPC server that speaks Triton's protocol: a model of TensorRT-LLM's, made of sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

STEP = 0.01
CHUNK = 512
NUMBERS = {"INT32": np.int32, "FP32": np.float32, "UINT64": np.uint64, "BOOL": np.bool_}


class Model(service_pb2_grpc.GRPCInferenceServiceServicer):
    """One slot. What is cancelled stops at its await, as a backend that asks each step.

    Attributes:
        requests: What was asked for.
        running: Streams that are here, in the slot or before it.
        steps: Made for anyone.
        peak: Streams that were here at once, at most.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.running = 0
        self.steps = 0
        self.peak = 0
        self._slot = asyncio.Lock()

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - theirs
        return service_pb2.ModelReadyResponse(ready=request.name == "ensemble")

    async def ModelStreamInfer(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            async for request in request_iterator:
                async for response in self._answer(request):
                    yield response
        finally:
            self.running -= 1

    async def _answer(self, request: Any) -> AsyncIterator[Any]:
        values = read(request)
        self.requests.append(values)
        if values["max_tokens"] > 100_000:
            yield service_pb2.ModelStreamInferResponse(error_message="too many tokens")
            return
        async with self._slot:
            async for text in self._generate(values):
                yield answer(request, text)
        yield answer(request, "")

    async def _generate(self, values: dict[str, Any]) -> AsyncIterator[str]:
        for _ in range(len(values["text_input"].split()) // CHUNK):
            await self._step()
        for number in range(values["max_tokens"]):
            await self._step()
            yield f"w{number} "

    async def _step(self) -> None:
        await asyncio.sleep(STEP)  # noqa: TID251 - asyncio's own server
        self.steps += 1


def read(request: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"model": request.model_name, "id": request.id}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if tensor.datatype == "BYTES":
            row = [piece.decode() for piece in deserialize_bytes_tensor(raw)]
        else:
            row = np.frombuffer(raw, NUMBERS[tensor.datatype]).tolist()
        values[tensor.name] = row[0] if len(row) == 1 else row
    return values


def answer(request: Any, text: str) -> Any:
    output = service_pb2.ModelInferResponse.InferOutputTensor(
        name="text_output", datatype="BYTES", shape=[1, 1]
    )
    raw = serialize_byte_tensor(np.array([[text.encode()]], dtype=object)).item()
    return service_pb2.ModelStreamInferResponse(
        infer_response=service_pb2.ModelInferResponse(
            model_name=request.model_name,
            id=request.id,
            outputs=[output],
            raw_output_contents=[raw],
        )
    )


async def start(model: Model) -> tuple[Any, str]:
    """Serve it on a free port; return the server and its address."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(model, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"
