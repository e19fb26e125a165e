"""``TransformersBatchEngine``: cancelled by id, proved by the books of its scheduler."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import anyio

from streamkit.engines._async_engine import AsyncEngine
from streamkit.engines._base import Capabilities, Chunk, EngineStatistics, Proof
from streamkit.engines._job import Job
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._request import GenerationRequest
from streamkit.errors import EngineFailed

from ._answers import Answers
from ._batching import Batching, start_batching
from ._engine import arguments_of, load_in_thread, not_loaded
from ._model import DEFAULT_TOKENS, TextModel, check_request
from ._sampling import check_sampling

FENCE_LOOK: Final = 0.001  # seconds
LIFE_LOOK: Final = 0.5  # seconds; a thread that died in the wrong moment tells nobody

_CAPABILITIES: Final = Capabilities(
    cancel_queued=True,
    cancel_prefill="chunk",
    extra_steps=2,  # the one that is made, and one whose tokens are on their way to the loop
    fence=True,
    observes=True,
    early_cancel_safe=True,
    thread_safe_cancel=True,
    proof=Proof.OBSERVED,
    takes=frozenset({"prompt_ids", "stop"}),
)


class TransformersBatchEngine(AsyncEngine):
    """A model of Hugging Face transformers in its continuous batching. Needs asyncio.

    A cancel is ``cancel_request(id)``, which takes effect before the next step; a step takes a part
    of a prompt at most (``max_batch_tokens``). transformers tells nobody of it and keeps the
    handler of the request's results: the reader is ended here, and the handler taken out. The proof
    is that its thread has twice dropped what was cancelled, and its scheduler has the request no
    longer.

    How tokens are chosen is one configuration for all requests, the model's; a request may say
    ``temperature`` or ``top_p`` only where that samples with one.

    Args:
        model: A ``PreTrainedModel``, with its ``tokenizer``; or a mapping of arguments, as for
            :class:`TransformersEngine`.
        tokenizer: The model's, where a model is given.
        max_tokens: Tokens of an answer when the request names no limit.
        settings: Fields of ``ContinuousBatchingConfig``. On a CPU give ``num_blocks`` and
            ``max_batch_tokens``: else the KV cache takes most of the memory.
        name: Its name in logs and metrics.
        limits: How long the ladder waits for a proof of stop: two steps, with a chunk of prefill.

    Raises:
        ValueError: A model without its tokenizer.
    """

    def __init__(
        self,
        model: object,
        tokenizer: object = None,
        *,
        max_tokens: int = DEFAULT_TOKENS,
        settings: Mapping[str, Any] | None = None,
        name: str = "transformers",
        limits: LadderLimits | None = None,
    ) -> None:
        super().__init__(name, _CAPABILITIES, limits)
        self.default_max_tokens: int | None = max_tokens
        self._args = arguments_of(model, tokenizer)
        self._text_model = TextModel(model, tokenizer) if self._args is None else None
        self._settings = settings or {}
        self._batching: Batching | None = None
        self._turn = anyio.Lock()
        self._held: dict[str, Answers] = {}  # until the scheduler is known to have them no longer
        self._tokens = 0  # of those that are not held any more

    async def load(self) -> None:
        """Load the model, where arguments were given, and start its batching. Once.

        Raises:
            MissingPackage: transformers or torch is not installed.
            Exception: Whatever transformers says about its arguments, or about the model.

        Cancellation:
            Stops waiting for the thread that loads.
        """
        if self._text_model is None and self._args is not None:
            self._text_model = await load_in_thread(self.name, self._args)
        if self._batching is None and self._text_model is not None:
            start = partial(start_batching, self._text_model.model, self._settings)
            self._attach(self._text_model, await anyio.to_thread.run_sync(start))

    @property
    def failure(self) -> BaseException | None:
        """What its thread died of, or None; known also while nothing is asked of it."""
        if self._failure is None and self._batching is not None:
            self._failure = self._batching.why_dead()
        return self._failure

    def check_alive(self) -> None:
        """Raise when nothing can be submitted now."""
        if self._batching is None and not self._closed:
            raise not_loaded(self.name)
        if self.failure is not None:
            self.died(self.failure)
        super().check_alive()

    def check(self, request: GenerationRequest) -> None:
        """Raise ValueError when it could never serve such a request, whatever its prompt is."""
        check_request(request)
        check_sampling(request.sampling)
        if request.sampling.temperature == 0:
            raise ValueError("temperature must be above 0: continuous batching samples for all")

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        """Yield what the manager makes of ``job``."""
        assert self._text_model is not None
        # Now: a cancel closes this generator, and one that has not added it yet will not.
        job.registered(lambda: self._cancel(job.id))
        answers = await self._add(job, self._text_model)
        try:
            while not answers.done:
                await self._wait(answers)
                for chunk in answers.take():
                    yield chunk  # noqa: ASYNC119 - the pump closes this generator, always
                self._end(answers)
            if answers.unfinished:  # without its handler a late token would be kept for ever
                await self.fence()
        finally:
            if not job.cancelled:  # else its books are still to be looked into
                self._cancel(job.id)
                self._forget(job.id)

    async def fence(self) -> None:
        """Return when every cancel that was sent before has been handled.

        The cancelled are dropped by the manager's thread with each step, also with an empty one.
        Twice, because the first may have begun before.

        Raises:
            Exception: What its thread died of.
        """
        for _ in range(2):
            batching = self._alive()
            before = batching.drops
            batching.cancel("")  # nobody's; wakes a thread that has nothing to do
            while batching.drops == before:
                await anyio.sleep(FENCE_LOOK)
                self._alive()

    async def is_gone(self, job_id: str) -> bool:
        """Whether the scheduler has nothing of it; asked behind the fence."""
        answers, batching = self._held.get(job_id), self._batching
        if answers is None or batching is None:
            return True
        if any(batching.holds(one) for one in answers.ids):
            return False
        self._forget(job_id)
        return True

    def statistics(self) -> EngineStatistics | None:
        """The scheduler's own numbers, and the tokens that came from it; None while it loads."""
        batching = self._batching
        if batching is None:
            return None
        return self.books(
            slots=batching.slots,
            running=batching.running,
            queued=batching.queued,
            steps=batching.steps,
            tokens=self._tokens + sum(answers.made for answers in self._held.values()),
        )

    async def aclose(self) -> None:
        """Cancel everything, wait for its end, and end the manager's thread. Idempotent."""
        await super().aclose()
        batching, self._batching = self._batching, None
        if batching is not None:
            await anyio.to_thread.run_sync(batching.stop, abandon_on_cancel=True)
        if self._args is not None:
            self._text_model = None

    # -- one request of ours is one of the manager's for each choice ---------------------------

    async def _add(self, job: Job, model: TextModel) -> Answers:
        async with self._turn:  # first come, first served: a long prompt takes longer to read
            prompt = await anyio.to_thread.run_sync(
                model.prompt_of, job.request, abandon_on_cancel=True
            )
        job.counted_prompt(len(prompt))
        answers = Answers(job, model, model.limit(prompt, job.max_tokens))
        self._held[job.id] = answers
        try:
            self._submit(job, answers, prompt)
        except BaseException:
            self._forget(job.id)
            raise
        return answers

    def _submit(self, job: Job, answers: Answers, prompt: Sequence[int]) -> None:
        batching = self._alive()
        sampling = job.request.sampling
        said = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        options = {name: float(value) for name, value in said.items() if value is not None}
        for index, one in enumerate(answers.ids):
            hear = partial(answers.hear, index)
            if not batching.add(one, hear, prompt, max_new_tokens=answers.limit, **options):
                self._alive()
                raise EngineFailed(f"{self.name} did not take {job.request_id}")

    async def _wait(self, answers: Answers) -> None:
        while not answers.heard:
            with anyio.move_on_after(LIFE_LOOK):
                await answers.wait()
            if answers.failed or not answers.heard:
                self._alive()

    def _end(self, answers: Answers) -> None:
        """Have those dropped that ended here, at a text to stop at: the manager knows of none."""
        if self._batching is not None:
            for one in answers.take_ended():
                self._batching.cancel(one)

    def _cancel(self, job_id: str) -> None:
        answers = self._held.get(job_id)
        if answers is not None and self._batching is not None:
            for one in answers.unfinished:
                self._batching.cancel(one)

    def _forget(self, job_id: str) -> None:
        answers = self._held.pop(job_id)
        self._tokens += answers.made
        if self._batching is not None:
            for one in answers.ids:
                self._batching.forget(one)

    def _alive(self) -> Batching:
        if self._batching is None:
            raise EngineFailed(f"engine {self.name} is closed")
        if (failure := self._batching.why_dead()) is not None:
            raise self.died(failure)
        return self._batching

    def _attach(self, text_model: TextModel, batching: Batching) -> None:
        self._batching = batching
        takes = _CAPABILITIES.takes | batching.heeds | text_model.takes
        self._capabilities = replace(
            _CAPABILITIES,
            extra_steps=(_CAPABILITIES.extra_steps or 0) + batching.steps_ahead,
            takes=takes,
        )
