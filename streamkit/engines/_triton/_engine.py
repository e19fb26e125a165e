"""``TritonEngine``: one gRPC stream for each request, cancelled in the turn of the cancel."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from streamkit.engines._async_engine import AsyncEngine
from streamkit.engines._base import Capabilities, Chunk, Proof
from streamkit.engines._job import Job
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._optional import check_installed
from streamkit.engines._request import GenerationRequest
from streamkit.errors import EngineFailed, RequestRefused

from ._words import in_our_words, index_of, tensors, text_of, values_of

INSTALL: Final = "pip install 'tritonclient[grpc]'"
DEFAULT_MAX_TOKENS: Final = 256  # TensorRT-LLM's models must be told one
CLOSE: Final = 1.0  # seconds for a cancelled call to end; it does so at once

CAPABILITIES: Final = Capabilities(
    cancel_queued=False,
    cancel_prefill="none",
    extra_steps=1,
    answers_cancel="never",
    early_cancel_safe=True,
    fence=False,
    observes=False,
    backpressure=False,
    thread_safe_cancel=False,
    kill=False,
    proof=Proof.CLOSED,
    takes=frozenset(
        {"stop", "temperature", "top_p", "seed", "frequency_penalty", "presence_penalty"}
    ),
)


class _Cancelled(Exception):
    """A call ended because it was cancelled here: that is no word of the server's."""


class TritonEngine(AsyncEngine):
    """A model of TensorRT-LLM's backend, served by Triton. Needs asyncio, and one event loop.

    Each request is a stream of its own, because cancelling a call ends all that is on it. A cancel
    cancels the call in the same turn; gRPC tells the server, and what becomes of the request there
    nobody says: the proof is ``closed``.

    Args:
        client: A ``tritonclient.grpc.aio.InferenceServerClient``, which stays the caller's to
            close; or the host and port of the gRPC service, ``"localhost:8001"``.
        model: The model's name there; it has the tensors of TensorRT-LLM's ``ensemble``, and
            streams (it is decoupled).
        max_tokens: Of an answer that names no limit.
        name: Its name in logs and metrics.
        limits: How long the ladder waits for a proof of stop.
    """

    def __init__(
        self,
        client: object,
        *,
        model: str = "ensemble",
        max_tokens: int = DEFAULT_MAX_TOKENS,
        name: str = "triton",
        limits: LadderLimits | None = None,
    ) -> None:
        super().__init__(name, CAPABILITIES, limits)
        self.default_max_tokens: int | None = max_tokens
        self._model = model
        self._url = client if isinstance(client, str) else None
        self._client: Any = None if isinstance(client, str) else client

    async def load(self) -> None:
        """Connect, and return when the server can be asked for the model.

        Raises:
            MissingPackage: Triton's client is not installed.
            EngineFailed: The server does not answer, or has no such model ready.
        """
        if self._client is None:
            check_client(self.name)
            module = importlib.import_module("tritonclient.grpc.aio")
            self._client = module.InferenceServerClient(self._url)
        where = f"Triton at {self._url}" if self._url else "Triton"
        try:
            ready: bool = await self._client.is_model_ready(self._model)
        except Exception as error:
            raise EngineFailed(f"{where} does not answer: {error}") from error
        if not ready:
            raise EngineFailed(f"{where} has no model {self._model!r} that is ready")

    def check_alive(self) -> None:
        """Raise when nothing can be submitted now."""
        if self._client is None and not self._closed:
            raise RequestRefused(
                f"engine {self.name} is not loaded: await its load()", retry_after=1.0, status=503
            )
        super().check_alive()

    def check(self, request: GenerationRequest) -> None:
        """Raise ValueError when such a model could never serve such a request."""
        if not request.prompt:
            raise ValueError("the prompt is empty")

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        """Yield what Triton makes of ``job``, until its stream ends."""
        made: Counter[int] = Counter()
        async with _in_our_words(job):
            responses = self._client.stream_infer(_one(self._inputs(job)))
            job.registered(responses.cancel, drain=CLOSE)
            async for result, error in responses:
                if error is not None:
                    raise error
                text, index = text_of(result), index_of(result)
                if text:  # the last response may be empty
                    made[index] += 1
                    yield Chunk(text, 1, index)  # noqa: ASYNC119 - the pump closes this generator
        for index in range(job.request.n):
            yield Chunk("", 0, index, "length" if made[index] >= (job.max_tokens or 0) else "stop")

    async def aclose(self) -> None:
        """Cancel everything, wait for its end, and close the client if it is ours. Idempotent."""
        await super().aclose()
        if self._url is not None and self._client is not None:
            client, self._client = self._client, None
            await client.close()

    def _inputs(self, job: Job) -> dict[str, Any]:
        return {
            "model_name": self._model,
            "request_id": job.id,
            "inputs": tensors(values_of(job.request, job.max_tokens)),
        }


def check_client(engine: str) -> None:
    """Raise MissingPackage unless Triton's client is installed, with what it needs for gRPC."""
    for package in ("tritonclient", "grpc"):
        check_installed(package, engine=engine, install=INSTALL)


async def _one(inputs: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """The requests of one stream: when they end, the server ends it with the last response."""
    yield inputs


@asynccontextmanager
async def _in_our_words(job: Job) -> AsyncGenerator[None]:
    try:
        yield
    except anyio.get_cancelled_exc_class():
        if job.cancelled:  # by us, or by its own call: in no case does the server say so
            raise _Cancelled(job.id) from None  # noqa: ASYNC104 - the pump ends with it
        raise
    except Exception as error:
        ours = in_our_words(error)
        if ours is error:
            raise
        raise ours from error
