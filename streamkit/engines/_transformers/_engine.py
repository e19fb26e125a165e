"""``TransformersEngine``: ``model.generate()``, stopped between tokens and inside a prefill."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any, Final, cast

import anyio

from streamkit.engines._base import Capabilities, Chunk, EngineStatistics, Proof
from streamkit.engines._job import Job
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._optional import check_installed
from streamkit.engines._request import GenerationRequest
from streamkit.engines._thread_engine import ThreadEngine
from streamkit.errors import RequestRefused

from ._generating import Generating
from ._layers import LayerHooks
from ._model import DEFAULT_TOKENS, INSTALL, TextModel, check_request, load_model
from ._sampling import check_sampling

CAPABILITIES: Final = Capabilities(
    cancel_queued=True,
    cancel_prefill="none",  # until the model's layers are known
    extra_steps=1,
    observes=True,
    backpressure=True,
    early_cancel_safe=True,
    thread_safe_cancel=True,
    proof=Proof.JOINED,
    takes=frozenset({"prompt_ids", "stop", "temperature", "top_p", "seed", "logprobs"}),
)


class TransformersEngine(ThreadEngine):
    """A model of Hugging Face transformers, and its own ``generate()``, one thread for each slot.

    A cancel ends it at the next token; in a prefill before the next layer, which raises. The proof
    is that the thread has left ``generate()``. What it leaves in the model is nothing: the cache
    belongs to the call, and the hooks are in the layers only while there is a prefill.

    The choices of ``n`` > 1 are rows of one batch. Several slots share the model, each with a batch
    of its own: for many requests at once there is :class:`TransformersBatchEngine`.

    Args:
        model: A ``PreTrainedModel``, with its ``tokenizer``; or a mapping of arguments for
            ``from_pretrained()``, from which :meth:`load` makes both: ``model`` and, where they are
            not as usual, ``tokenizer``, ``device``, ``dtype`` and any other.
        tokenizer: The model's, where a model is given.
        slots: Generations that run at once.
        max_tokens: Tokens of an answer when the request names no limit.
        name: Its name in logs and metrics.
        limits: How long the ladder waits for a proof of stop. The step of a large model on a CPU
            can take longer than the usual second.

    Raises:
        ValueError: A model without its tokenizer.
    """

    def __init__(
        self,
        model: object,
        tokenizer: object = None,
        *,
        slots: int = 1,
        max_tokens: int = DEFAULT_TOKENS,
        name: str = "transformers",
        limits: LadderLimits | None = None,
    ) -> None:
        super().__init__(name, CAPABILITIES, slots=slots, limits=limits)
        self.default_max_tokens: int | None = max_tokens
        self._args = arguments_of(model, tokenizer)
        self._text_model: TextModel | None = None
        self._hooks: LayerHooks | None = None
        if self._args is None:
            self._attach(TextModel(model, tokenizer))

    async def load(self) -> None:
        """Load the model, where arguments were given. Does nothing the second time.

        Raises:
            MissingPackage: transformers or torch is not installed.
            Exception: Whatever transformers says about its arguments, or about the model.

        Cancellation:
            Stops waiting for the thread that loads.
        """
        if self._text_model is None and self._args is not None:
            self._attach(await load_in_thread(self.name, self._args))

    def check_alive(self) -> None:
        """Raise when nothing can be submitted now."""
        if self._text_model is None:
            raise not_loaded(self.name)
        super().check_alive()

    def check(self, request: GenerationRequest) -> None:
        """Raise ValueError when it could never serve such a request, whatever its prompt is."""
        check_request(request)
        check_sampling(request.sampling)

    def compute(self, job: Job) -> Generator[Chunk]:
        """Yield what ``generate()`` makes; in the slot's thread."""
        assert self._text_model is not None
        assert self._hooks is not None
        job.made = 0
        with Generating(self._text_model, self._hooks, job) as chunks:
            yield from chunks

    def statistics(self) -> EngineStatistics | None:
        """Its books; None while it is loading."""
        return None if self._text_model is None else super().statistics()

    async def aclose(self) -> None:
        """Cancel everything, wait for its end, and let go of a model that :meth:`load` made."""
        await super().aclose()
        if self._args is not None:
            self._text_model = self._hooks = None

    def _attach(self, text_model: TextModel) -> None:
        self._text_model = text_model
        self._hooks = LayerHooks(text_model.model)
        takes = CAPABILITIES.takes | text_model.takes
        # A GPU is given the work of all layers in advance, and can not be asked to leave it.
        reached = self._hooks.layers and text_model.model.device.type == "cpu"
        self._capabilities = replace(
            CAPABILITIES, cancel_prefill="layer" if reached else "none", takes=takes
        )


def arguments_of(model: object, tokenizer: object) -> Mapping[str, Any] | None:
    """Return the arguments that a model is to be loaded with; None where it is there.

    Raises:
        ValueError: A model without its tokenizer.
    """
    if isinstance(model, Mapping):
        return cast("Mapping[str, Any]", model)
    if tokenizer is None:
        raise ValueError("a model that is loaded already needs its tokenizer beside it")
    return None


async def load_in_thread(name: str, args: Mapping[str, Any]) -> TextModel:
    """Load a model; see :meth:`TransformersEngine.load`."""
    for package in ("transformers", "torch"):
        check_installed(package, engine=name, install=INSTALL)
    return await anyio.to_thread.run_sync(load_model, args, abandon_on_cancel=True)


def not_loaded(name: str) -> RequestRefused:
    """What a request gets before the model is there."""
    return RequestRefused(
        f"engine {name} is not loaded: await its load()", retry_after=1.0, status=503
    )
