"""``LlamaCppEngine``: closed between two tokens, interrupted inside one, proved by its thread."""

from __future__ import annotations

import codecs
import importlib
import logging
import random
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, Final, cast

import anyio

from streamkit.engines._base import Capabilities, Chunk, Proof, TokenLogprob
from streamkit.engines._job import Job
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._optional import check_installed
from streamkit.engines._request import GenerationRequest
from streamkit.engines._stop import cut_at
from streamkit.engines._thread_engine import ThreadEngine
from streamkit.errors import RequestRefused

from ._words import TEMPLATE, likelihood, sampling_keywords, tokens_of

logger = logging.getLogger("streamkit.engines")

INSTALL: Final = "pip install llama-cpp-python"
SEEDS: Final = 1 << 32

CAPABILITIES: Final = Capabilities(
    cancel_queued=True,
    cancel_prefill="node",
    extra_steps=1,
    answers_cancel="never",
    early_cancel_safe=True,
    fence=False,
    observes=True,
    backpressure=True,
    thread_safe_cancel=True,
    kill=False,
    proof=Proof.JOINED,
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


class LlamaCppEngine(ThreadEngine):
    """A ``Llama`` of llama-cpp-python: one context, so one slot; other requests wait here.

    Its tokens are pulled on a thread, and nothing is computed between two pulls, so that a cancel
    there closes its generator and is over. Inside a step llama.cpp asks a callback before each
    operation of the model whether to go on: a prompt of minutes ends within milliseconds. The
    context stays good, and what it has of the prompt serves the next one that begins alike.

    Tokens are pulled, not texts: ``create_completion(stream=True)`` can wait for the rest of a code
    point for ever, inside of one pull, where nothing can close it.

    Args:
        engine: A ``Llama``, which stays the caller's to close, is used by nobody else meanwhile,
            and loses its own abort callback; or a mapping of the arguments of ``Llama()``, from
            which :meth:`load` makes one that :meth:`aclose` closes.
        name: Its name in logs and metrics.
        limits: How long the ladder waits for a proof of stop.
    """

    def __init__(
        self, engine: object, *, name: str = "llama_cpp", limits: LadderLimits | None = None
    ) -> None:
        super().__init__(name, CAPABILITIES, limits=limits)
        self._llm: Any = None
        self._lib: Any = None
        self._args: Mapping[str, Any] | None = None
        self._asking: Job | None = None  # whose work llama.cpp does now
        self._callback: object = None  # kept: llama.cpp calls it as long as the context lives
        if isinstance(engine, Mapping):
            self._args = cast("Mapping[str, Any]", engine)
            self._seeds = random.Random(self._args.get("seed"))  # noqa: S311 - no secrets
        else:
            self._seeds = random.Random()  # noqa: S311
            self._attach(engine)

    async def load(self) -> None:
        """Make the ``Llama``, where arguments were given. Does nothing the second time.

        Raises:
            MissingPackage: llama-cpp-python is not installed.
            Exception: Whatever it says about its arguments, or the model.

        Cancellation:
            Leaves the thread that loads to come to its end.
        """
        if self._llm is None and self._args is not None:
            check_installed("llama_cpp", engine=self.name, install=INSTALL)
            llm = await anyio.to_thread.run_sync(_make, self._args, abandon_on_cancel=True)
            self._attach(llm)

    def check_alive(self) -> None:
        """Raise when nothing can be submitted now."""
        if self._llm is None and not self._closed:
            raise RequestRefused(
                f"engine {self.name} is not loaded: await its load()", retry_after=1.0, status=503
            )
        super().check_alive()

    def check(self, request: GenerationRequest) -> None:
        """Raise ValueError for token ids that the model does not have: llama.cpp takes any."""
        if self._llm is None or not request.prompt_ids:
            return
        known = self._llm.n_vocab()
        for token in request.prompt_ids:
            if not 0 <= token < known:
                raise ValueError(f"prompt_ids must be from 0 to {known - 1}, got {token}")

    def compute(self, job: Job) -> Generator[Chunk]:
        """Yield its choices, one after another."""
        prompt = tokens_of(self._llm, job.request)
        job.counted_prompt(len(prompt))
        job.made = 0
        self._asking = job
        try:
            for index in range(job.request.n):
                yield from cut_at(self._choice(job, prompt, index), job.request.stop)
        finally:
            self._asking = None

    def _choice(self, job: Job, prompt: list[int], index: int) -> Generator[Chunk]:
        llm, sampling = self._llm, job.request.sampling
        room = llm.n_ctx() - len(prompt)
        limit = min(job.max_tokens or room, room)
        # As the package itself does: what never becomes a character is left out.
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        vocabulary = self._lib.llama_model_get_vocab(llm.model)
        llm.set_seed(self._seed(sampling.seed, index))
        before = list(prompt)
        with closing(llm.generate(prompt, **sampling_keywords(sampling))) as tokens:
            for token in tokens:
                if self._lib.llama_vocab_is_eog(vocabulary, token):
                    yield Chunk("", 0, index, "stop")
                    return
                text = decoder.decode(llm.detokenize([token], prev_tokens=before))
                before.append(token)
                ended = "length" if len(before) == len(prompt) + limit else None
                told = self._likelihood(token, sampling.logprobs)
                yield Chunk(text, 1, index, ended, told)
                if ended:
                    return

    def _likelihood(self, token: int, likeliest: int | None) -> tuple[TokenLogprob, ...]:
        return () if likeliest is None else (likelihood(self._llm, token, likeliest),)

    def _seed(self, asked: int | None, index: int) -> int:
        base = self._seeds.randrange(SEEDS) if asked is None else asked
        return (base + index) % SEEDS

    async def aclose(self) -> None:
        """Cancel everything, wait for its end, and close the ``Llama`` if :meth:`load` made it.

        Idempotent. It is not closed under a thread that does not end: that would be a crash.
        """
        await super().aclose()
        llm, self._llm = self._llm, None
        if llm is None:
            return
        if any(seat.running for seat in self._seats):
            logger.error("%s was not freed: a thread still computes with it", self.name)
            return
        nobody = self._lib.ggml_abort_callback()
        self._lib.llama_set_abort_callback(llm.ctx, nobody, None)
        if self._args is not None:
            await anyio.to_thread.run_sync(llm.close)

    def _attach(self, llm: Any) -> None:
        self._llm = llm
        self._lib = importlib.import_module("llama_cpp")
        self._callback = self._lib.ggml_abort_callback(self._is_cancelled)
        self._lib.llama_set_abort_callback(llm.ctx, self._callback, None)
        takes = set(CAPABILITIES.takes)
        if TEMPLATE in llm.metadata:
            takes.add("messages")
        if llm.draft_model is not None:  # its logits are those of several tokens
            takes.remove("logprobs")
        on_gpu = self._lib.llama_supports_gpu_offload() and llm.model_params.n_gpu_layers != 0
        self._capabilities = replace(
            CAPABILITIES,
            cancel_prefill="none" if on_gpu else "node",
            takes=frozenset(takes),
        )

    def _is_cancelled(self, _: object) -> bool:
        """What llama.cpp asks, some hundred times for each token. In the thread that computes."""
        job = self._asking
        return job is not None and job.cancelled


def _make(args: Mapping[str, Any]) -> Any:
    llama: Any = importlib.import_module("llama_cpp").Llama
    return llama(**{"verbose": False, **args})
