"""The model with its tokenizer: how both are loaded, and what a request is in their tokens."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streamkit.engines._request import GenerationRequest
from streamkit.errors import BadPayload

from ._sampling import ends_of

INSTALL: Final = "pip install transformers torch"
DEFAULT_TOKENS: Final = 512  # of an answer that names no limit; a model may never end by itself


class TextModel:
    """A causal language model and its tokenizer.

    Attributes:
        model: A ``PreTrainedModel``.
        tokenizer: A ``PreTrainedTokenizerBase``.
        context: Tokens of a prompt and its answer together; None where the model does not say.
        takes: What of a request it heeds because of its tokenizer: messages, with a template.
        ends: Tokens that end an answer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        config = model.config.get_text_config()
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        template = getattr(tokenizer, "chat_template", None)
        self.takes: frozenset[str] = frozenset({"messages"} if template else ())
        self.ends = ends_of(model.generation_config)
        self._lock = threading.Lock()  # a fast tokenizer that two threads set up at once refuses

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; special ones have none."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def prompt_of(self, request: GenerationRequest) -> list[int]:
        """Return the prompt's tokens. Takes a while with a long one: not in the event loop.

        Raises:
            BadPayload: The chat template refuses the messages, or there is no room for an answer.
        """
        with self._lock:
            tokens = self._tokenize(request)
        if not tokens:
            raise BadPayload("the prompt has no tokens")
        if self.context is not None and len(tokens) >= self.context:
            raise BadPayload(
                f"the prompt has {len(tokens)} tokens, and the model's context holds "
                f"{self.context} with the answer"
            )
        return tokens

    def limit(self, prompt: Sequence[int], asked: int | None) -> int:
        """Return how many tokens an answer may have."""
        asked = asked or DEFAULT_TOKENS
        return asked if self.context is None else min(asked, self.context - len(prompt))

    def _tokenize(self, request: GenerationRequest) -> list[int]:
        if request.prompt_ids:
            return list(request.prompt_ids)
        if not (request.messages and self.takes):
            return list(self.tokenizer(request.prompt)["input_ids"])
        messages = [{"role": one.role, "content": one.content} for one in request.messages]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            raise BadPayload(
                f"the chat template of the model refuses the messages: {error}"
            ) from error
        # The template has written the special tokens already.
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def check_request(request: GenerationRequest) -> None:
    """Raise ValueError when there is nothing to begin with."""
    if not (request.prompt or request.prompt_ids):
        raise ValueError("the prompt is empty")


def load_model(args: Mapping[str, Any]) -> TextModel:
    """Return a model and its tokenizer: seconds to minutes, in a thread.

    Args:
        args: Those of ``AutoModelForCausalLM.from_pretrained()``; besides them ``model``, the
            folder or name, ``tokenizer``, if it is another, and ``device``, if it is not the GPU
            that there is, or else the CPU.

    Raises:
        Exception: Whatever transformers says.
    """
    transformers = importlib.import_module("transformers")
    rest = {"dtype": "auto", **args}
    name, device = rest.pop("model"), rest.pop("device", None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(rest.pop("tokenizer", None) or name)
    model = transformers.AutoModelForCausalLM.from_pretrained(name, **rest)
    if "device_map" not in rest:
        model = model.to(device or _best_device())
    return TextModel(model.eval(), tokenizer)


def _best_device() -> str:
    torch = importlib.import_module("torch")
    return "cuda" if torch.cuda.is_available() else "cpu"
