"""Between llama-cpp-python's words and ours: prompts, sampling, the likelihood of a token."""

from __future__ import annotations

import importlib
from typing import Any, Final

from streamkit.engines._base import TokenLogprob
from streamkit.engines._request import GenerationRequest, Sampling
from streamkit.errors import BadPayload

TEMPLATE: Final = "tokenizer.chat_template"  # in the metadata of a GGUF file
_NAMES: Final = {
    "temperature": "temp",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}


def sampling_keywords(sampling: Sampling) -> dict[str, float]:
    """Return what ``Llama.generate()`` takes; what is not asked for keeps its defaults there."""
    asked = {theirs: getattr(sampling, ours) for ours, theirs in _NAMES.items()}
    return {name: value for name, value in asked.items() if value is not None}


def tokens_of(llm: Any, request: GenerationRequest) -> list[int]:
    """Return the prompt's tokens, as llama-cpp-python itself makes them.

    Raises:
        BadPayload: There are none, or too many, or the chat template refuses the messages.
    """
    if request.prompt_ids:
        tokens = list(request.prompt_ids)
    elif request.messages and TEMPLATE in llm.metadata:
        # The template has written the special tokens already.
        text = _apply_template(llm, request)
        tokens = llm.tokenize(text.encode(), add_bos=False, special=True)
    else:
        tokens = llm.tokenize(request.prompt.encode(), add_bos=True, special=True)
    if not tokens:
        raise BadPayload("the prompt is empty")
    room = llm.n_ctx() - 1
    if len(tokens) > room:
        raise BadPayload(
            f"the prompt has {len(tokens)} tokens; a context of {llm.n_ctx()} (n_ctx) takes {room}"
        )
    return tokens


def _apply_template(llm: Any, request: GenerationRequest) -> str:
    formats = importlib.import_module("llama_cpp.llama_chat_format")
    template = formats.Jinja2ChatFormatter(
        template=llm.metadata[TEMPLATE],
        eos_token=_name_of(llm, llm.token_eos()),
        bos_token=_name_of(llm, llm.token_bos()),
    )
    messages = [{"role": one.role, "content": one.content} for one in request.messages]
    try:
        return template(messages=messages).prompt
    except Exception as error:
        raise BadPayload(f"the chat template of the model refuses the messages: {error}") from error


def _name_of(llm: Any, token: int) -> str:
    return "" if token < 0 else llm.detokenize([token], special=True).decode(errors="replace")


def likelihood(llm: Any, token: int, likeliest: int) -> TokenLogprob:
    """Return how likely the token was that was just taken, and so many others.

    From the logits that llama.cpp keeps of the last token that it computed: ``logprobs`` of the
    package needs ``logits_all``, which keeps those of each token of the prompt as well.
    """
    pointer = importlib.import_module("llama_cpp").llama_get_logits_ith(llm.ctx, -1)
    as_array: Any = importlib.import_module("numpy").ctypeslib.as_array
    logprobs = llm.logits_to_logprobs(as_array(pointer, shape=(llm.n_vocab(),)))
    ranked = (-logprobs).argsort(kind="stable")[:likeliest]

    def text(token: int) -> str:
        return llm.detokenize([token]).decode(errors="replace")

    top = tuple((text(int(one)), float(logprobs[one])) for one in ranked)
    return TokenLogprob(text(token), float(logprobs[token]), top)
