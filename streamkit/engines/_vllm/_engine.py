"""``VLLMEngine``: closes its generator, aborts by id, and has a round trip prove it."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import anyio

from streamkit.engines._async_engine import AsyncEngine
from streamkit.engines._base import Capabilities, Chunk, EngineStatistics, Proof
from streamkit.engines._job import Job
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._lasting_thread import make_in_lasting_thread
from streamkit.engines._optional import check_installed
from streamkit.engines._request import GenerationRequest
from streamkit.errors import RequestRefused

from ._books import Books
from ._words import chunks_of, has_template, in_our_words, is_death, prompt_of, sampling_params

INSTALL: Final = "pip install vllm"
FENCE_CHECK: Final = 0.25  # seconds

CAPABILITIES: Final = Capabilities(
    cancel_queued=True,
    cancel_prefill="chunk",
    extra_steps=1,
    answers_cancel="never",  # it would, but its generator is closed first
    early_cancel_safe=False,
    fence=True,
    observes=False,
    backpressure=False,
    thread_safe_cancel=False,
    kill=False,
    proof=Proof.FENCED,
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


class VLLMEngine(AsyncEngine):
    """vLLM's ``AsyncLLM``. Needs asyncio, and belongs to the event loop that first uses it.

    A cancel closes vLLM's generator, in the task that reads it; then it aborts by id, for what vLLM
    had registered before its generator knew; then it waits for a round trip to the engine core down
    the channel that aborts take, which shows that they were handled. Only in this order is no
    cancel lost and nothing left in vLLM's books: an abort that comes before the request is lost
    there, and one by id alone leaves the parent of ``n`` > 1 behind for ever (0.32 and 0.33).

    What vLLM computes for a request after its abort it does not tell: ``tokens_made`` is None.

    Args:
        engine: An ``AsyncLLM``, which stays the caller's to shut down; or ``AsyncEngineArgs``, or
            a mapping of its fields, from which :meth:`load` makes one that :meth:`aclose` ends.
        name: Its name in logs and metrics.
        limits: How long the ladder waits for a proof of stop. A step of a large model with a chunk
            of prefill in it can take longer than the usual second.
    """

    def __init__(
        self, engine: object, *, name: str = "vllm", limits: LadderLimits | None = None
    ) -> None:
        super().__init__(name, CAPABILITIES, limits)
        self._llm: Any = None
        self._books: Books | None = None
        self._defaults: Mapping[str, Any] = {}
        self._tokenizer: Any = None
        self._args: object = None
        self._let_go: Callable[[], object] = lambda: None  # of the thread that made it
        if hasattr(engine, "generate"):
            self._attach(engine)
        else:
            self._args = engine

    async def load(self) -> None:
        """Make the engine, where arguments were given, and wait until it answers.

        vLLM is imported, its processes started and its model loaded in a thread: half a minute at
        least. Does nothing the second time.

        Raises:
            MissingPackage: vLLM is not installed.
            Exception: Whatever vLLM says about its arguments, or its start.

        Cancellation:
            Ends the processes that it started, and leaves the thread to find that out.
        """
        if self._llm is None:
            check_installed("vllm", engine=self.name, install=INSTALL)
            before = set(multiprocessing.active_children())
            try:
                llm, self._let_go = await make_in_lasting_thread(partial(_make, self._args))
            except anyio.get_cancelled_exc_class():
                # Not terminate(): a core that is being made puts that off until it has been made.
                for child in set(multiprocessing.active_children()) - before:
                    child.kill()
                raise
            self._attach(llm)
        # What vLLM does in the loop begins with its first call; until then a death goes unseen.
        await self.fence()

    @property
    def failure(self) -> BaseException | None:
        """What it died of, or None; vLLM knows it also while nothing is asked of it."""
        if self._failure is None and self._llm is not None and self._llm.errored:
            self._failure = self._llm.dead_error
        return self._failure

    def check_alive(self) -> None:
        """Raise when nothing can be submitted now."""
        if self._llm is None:
            raise RequestRefused(
                f"engine {self.name} is not loaded: await its load()", retry_after=1.0, status=503
            )
        super().check_alive()

    def check(self, request: GenerationRequest) -> None:
        """Raise ValueError when vLLM could never serve such a request, whatever its prompt is."""
        if not (request.prompt or request.prompt_ids):
            raise ValueError("the prompt is empty")
        if self._llm is not None:
            sampling_params(request, request.max_tokens, self._defaults)

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        """Yield what vLLM makes of ``job``; closing it aborts."""
        llm = self._llm
        params = sampling_params(job.request, job.max_tokens, self._defaults)
        prompt, keywords = prompt_of(job.request, self._tokenizer)
        # Now, and not with the first output: that comes after the prefill. A cancel closes the
        # generator at whatever await it is, and one that has not begun will submit nothing.
        job.registered(lambda: llm.abort(job.id))
        generator = aclosing(llm.generate(prompt, params, job.id, **keywords))
        async with self._in_our_words(), generator as outputs:
            async for output in outputs:
                job.counted_prompt(len(output.prompt_token_ids or ()))
                for chunk in chunks_of(output, job.request.sampling.logprobs):
                    yield chunk  # noqa: ASYNC119 - the pump closes this generator, always

    async def fence(self) -> None:
        """Return when the engine core has handled every abort that was sent before.

        Raises:
            EngineDeadError: vLLM's, when it is dead.
        """
        while self._llm is not None:
            try:
                # Asked once more after a while: a core that was killed never answers, but the next
                # question is refused. Each of them would do; the answer is of no interest.
                with anyio.move_on_after(FENCE_CHECK):
                    await self._llm.is_paused()
                    return
            except Exception as error:
                if not is_death(error):
                    raise
                raise self.died(error) from None

    async def is_gone(self, job_id: str) -> bool:
        """Whether the scheduler is idle: its counts are of all requests, and name none."""
        books = self._books
        return books is not None and books.running + books.waiting == 0

    def statistics(self) -> EngineStatistics | None:
        """The scheduler's own numbers; None while it is loading, or where it keeps none."""
        books = self._books
        if books is None:
            return None
        return self.books(
            slots=self._slots,
            running=books.running,
            queued=books.waiting,
            steps=books.steps,
            tokens=books.tokens,
        )

    async def aclose(self) -> None:
        """Cancel everything, wait for its end, and shut vLLM down if :meth:`load` made it.

        Idempotent. vLLM takes some seconds for that, in a thread.
        """
        await super().aclose()
        if self._books is not None:
            self._llm.logger_manager.stat_loggers.remove(self._books)
            self._books = None
        if self._args is not None and self._llm is not None:
            llm, self._llm = self._llm, None
            await anyio.to_thread.run_sync(llm.shutdown, abandon_on_cancel=True)
        self._let_go()

    @asynccontextmanager
    async def _in_our_words(self) -> AsyncGenerator[None]:
        """Whatever vLLM raises in here says afterwards who has to act."""
        try:
            yield
        except Exception as error:
            if is_death(error):
                raise self.died(error) from None
            ours = in_our_words(error)
            if ours is error:
                raise
            raise ours from error

    def _attach(self, llm: Any) -> None:
        self._llm = llm
        self._tokenizer = llm.get_tokenizer()
        self._defaults = llm.model_config.get_diff_sampling_param()
        config = llm.vllm_config
        self._slots = (
            config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        )
        loggers = llm.logger_manager
        if loggers is not None:
            self._books = Books()
            loggers.stat_loggers.append(self._books)
        takes = set(CAPABILITIES.takes)
        if has_template(self._tokenizer):
            takes.add("messages")
        # A step that was scheduled ahead is computed as well.
        ahead = 1 if config.scheduler_config.async_scheduling else 0
        self._capabilities = replace(
            CAPABILITIES,
            extra_steps=1 + ahead,
            observes=self._books is not None,
            takes=frozenset(takes),
        )


def _make(args: object) -> Any:
    if isinstance(args, Mapping):
        arguments = importlib.import_module("vllm.engine.arg_utils")
        args = arguments.AsyncEngineArgs(**cast("Mapping[str, Any]", args))
    return importlib.import_module("vllm.v1.engine.async_llm").AsyncLLM.from_engine_args(args)
