"""``TensorRTLLMEngine``: aborts by handle, waits for the last word, and not for one never said."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import anyio

from streamkit.engines._async_engine import AsyncEngine
from streamkit.engines._base import Capabilities, Chunk, Proof
from streamkit.engines._job import Job
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._lasting_thread import make_in_lasting_thread
from streamkit.engines._optional import check_installed
from streamkit.engines._request import GenerationRequest
from streamkit.errors import BadPayload, EngineFailed, RequestRefused

from ._answer import Answer
from ._words import check_request, has_template, is_down, prompt_of, sampling_params

INSTALL: Final = "pip install tensorrt-llm, with NVIDIA's package index as an extra one"
ANSWER_LIMIT: Final = 10.0  # seconds; a step with a large chunk of prefill in it takes its time
SILENCE: Final = 0.5  # of the ladder's first wait

CAPABILITIES: Final = Capabilities(
    cancel_queued=True,
    cancel_prefill="none",
    extra_steps=2,  # one that runs, and one on its way to us: tokens are counted where they arrive
    answers_cancel="running",
    early_cancel_safe=True,
    fence=False,
    observes=False,
    backpressure=False,
    thread_safe_cancel=False,
    kill=False,
    proof=Proof.CLOSED,
    takes=frozenset(
        {
            "prompt_ids",
            "stop",
            "temperature",
            "top_p",
            "seed",
            "frequency_penalty",
            "presence_penalty",
            "logprobs",
        }
    ),
)
_TORCH: Final = frozenset({"pytorch", "_autodeploy"})


class TensorRTLLMEngine(AsyncEngine):
    """TensorRT-LLM's ``LLM``. Needs asyncio, and belongs to the event loop that first uses it.

    A cancel calls the handle's ``abort()``, in the turn of the cancel and in the loop's thread,
    which is the one that submits: the two share a socket. Then the handle is read on. One that had
    begun to answer says a last word, and is believed to have stopped when it did. One that waits
    in TensorRT-LLM's queue is taken out of it without a word (1.2, PyTorch backend): after half of
    ``limits.stop_bound`` it is closed, and no more than ``closed`` is claimed.

    Args:
        engine: An ``LLM``, which stays the caller's to shut down; or a mapping of its arguments,
            from which :meth:`load` makes one that :meth:`aclose` ends.
        name: Its name in logs and metrics.
        limits: How long the ladder waits for a proof of stop.

    Raises:
        ValueError: The ``LLM`` has no tokenizer.
    """

    closing_proves = Proof.SENT  # what runs on would do so without a reader as well

    def __init__(
        self, engine: object, *, name: str = "trtllm", limits: LadderLimits | None = None
    ) -> None:
        super().__init__(name, CAPABILITIES, limits)
        self._llm: Any = None
        self._arguments: Mapping[str, Any] | None = None
        self._let_go: Callable[[], object] = lambda: None  # of the thread that made it
        if isinstance(engine, Mapping):
            self._arguments = cast("Mapping[str, Any]", engine)
        else:
            self._attach(engine)

    async def load(self) -> None:
        """Make the engine, where arguments were given; does nothing the second time.

        TensorRT-LLM is imported, its processes are started and its model loaded in a thread.

        Raises:
            MissingPackage: TensorRT-LLM is not installed.
            Exception: Whatever it says about its arguments, or its start.

        Cancellation:
            Leaves the thread to finish, and what it made to the end of the process.
        """
        if self._llm is not None:
            return
        check_installed("tensorrt_llm", engine=self.name, install=INSTALL)
        make = partial(_make, self._arguments)
        llm, self._let_go = await make_in_lasting_thread(make)
        self._attach(llm)

    @property
    def failure(self) -> BaseException | None:
        """What it died of, or None; that it was shut down is seen while nothing is asked of it."""
        if self._failure is None and self._llm is not None and is_down(self._llm):
            self._failure = EngineFailed("TensorRT-LLM was shut down")
        return self._failure

    def check_alive(self) -> None:
        """Raise when nothing can be submitted now."""
        if self._llm is None and not self._closed:
            raise RequestRefused(
                f"engine {self.name} is not loaded: await its load()", retry_after=1.0, status=503
            )
        super().check_alive()

    def check(self, request: GenerationRequest) -> None:
        """Raise ValueError when TensorRT-LLM could never serve such a request."""
        check_request(request)
        if self._llm is not None:
            sampling_params(request, request.max_tokens)

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        """Yield what TensorRT-LLM makes of ``job``; closing it aborts nothing, only its abort."""
        handle = self._submit(job)
        answer = Answer(job, self._llm.tokenizer.decode)
        job.registered(handle.abort, drain=SILENCE * self.limits.stop_bound)
        began = False
        try:
            while not handle.finished:
                await self._read(handle)
                if not (began or job.cancelled):  # it runs: its last word will come
                    began = True
                    job.registered(handle.abort, drain=max(ANSWER_LIMIT, self.limits.total))
                for chunk in answer.chunks(handle):
                    yield chunk  # noqa: ASYNC119 - the pump closes this generator, always
        finally:
            if not (began or handle.finished):
                job.proved(Proof.CLOSED)

    async def aclose(self) -> None:
        """Cancel everything, wait for its end, and shut down what :meth:`load` made. Idempotent."""
        await super().aclose()
        if self._arguments is not None and self._llm is not None:
            llm, self._llm = self._llm, None
            await anyio.to_thread.run_sync(llm.shutdown, abandon_on_cancel=True)
        self._let_go()

    def _submit(self, job: Job) -> Any:
        params = sampling_params(job.request, job.max_tokens)
        prompt = prompt_of(job.request, self._llm.tokenizer)
        try:
            # Without a thread for its tokenizer: what is submitted in one thread and aborted in
            # another mixes up the two messages.
            handle = self._llm.generate_async(prompt, params, streaming=True)
        except ValueError as error:
            raise BadPayload(str(error)) from error
        except Exception as error:
            if is_down(self._llm):
                raise self.died(error) from None
            raise
        job.counted_prompt(len(handle.prompt_token_ids))
        return handle

    async def _read(self, handle: Any) -> None:
        """Wait until it holds more; what it yields is the handle itself."""
        try:
            await anext(handle)
        except StopAsyncIteration:
            raise EngineFailed("TensorRT-LLM ended an answer before it had finished") from None
        except Exception as error:
            if is_down(self._llm):
                raise self.died(error) from None
            raise

    def _attach(self, llm: Any) -> None:
        if llm.tokenizer is None:
            raise ValueError(f"engine {self.name} needs a tokenizer: leave skip_tokenizer_init off")
        self._llm = llm
        args = llm.args
        torch = getattr(args, "backend", None) in _TORCH
        # A step is launched before the last one is looked at.
        ahead = 1 if torch and not getattr(args, "disable_overlap_scheduler", False) else 0
        takes = set(CAPABILITIES.takes)
        if has_template(llm.tokenizer):
            takes.add("messages")
        self._capabilities = replace(
            CAPABILITIES,
            cancel_queued=torch,  # the other backend looks at it when it would begin
            cancel_prefill="chunk" if getattr(args, "enable_chunked_prefill", False) else "none",
            extra_steps=(CAPABILITIES.extra_steps or 0) + ahead,
            takes=frozenset(takes),
        )


def _make(arguments: Mapping[str, Any] | None) -> Any:
    return importlib.import_module("tensorrt_llm").LLM(**(arguments or {}))
