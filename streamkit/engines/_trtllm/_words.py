"""Between TensorRT-LLM's words and ours: requests and errors; its answers are in ``_answer``."""

from __future__ import annotations

import importlib
from typing import Any, Final

from streamkit.engines._request import GenerationRequest, Sampling
from streamkit.errors import BadPayload

_PLAIN: Final = ("seed", "frequency_penalty", "presence_penalty")
_ALL: Final = 1.0  # a top_p that leaves out nothing


def check_request(request: GenerationRequest) -> None:
    """Raise ValueError for what TensorRT-LLM could never answer as it is asked for."""
    if not (request.prompt or request.prompt_ids):
        raise ValueError("the prompt is empty")
    if request.stop and request.n > 1:
        # A stop string that its detokenizer finds in one choice aborts the request, with all.
        raise ValueError(
            f"stop with n={request.n} is not supported: TensorRT-LLM ends all choices where the "
            "first of them stops; ask for one choice at a time"
        )


def sampling_params(request: GenerationRequest, max_tokens: int | None) -> Any:
    """Return TensorRT-LLM's ``SamplingParams``.

    Args:
        request: What is asked for.
        max_tokens: Of each choice; None lets it fill the model's context.

    Raises:
        ValueError: A value is out of its range, or does not go with another.
    """
    sampling = request.sampling
    values: dict[str, Any] = {name: getattr(sampling, name) for name in _PLAIN}
    values |= choosing(sampling, request.n)
    if sampling.logprobs is not None:
        values["logprobs"] = max(1, sampling.logprobs)  # 0 would be none, also of the token itself
    if request.stop:
        values["stop"] = list(request.stop)
    return importlib.import_module("tensorrt_llm").SamplingParams(
        n=request.n,
        max_tokens=max_tokens,
        add_special_tokens=not request.messages,  # the chat template has written them already
        **{name: value for name, value in values.items() if value is not None},
    )


def choosing(sampling: Sampling, n: int) -> dict[str, Any]:
    """The likeliest token, or one by chance.

    It takes the likeliest whatever the temperature, unless ``top_p`` or ``top_k`` say that there
    is something to choose from; and it knows no temperature of 0.
    """
    if sampling.temperature == 0:
        return {"top_k": 1}
    by_chance = n > 1 or sampling.temperature is not None
    top_p = sampling.top_p if sampling.top_p is not None else _ALL if by_chance else None
    return {"temperature": sampling.temperature, "top_p": top_p}


def prompt_of(request: GenerationRequest, tokenizer: Any) -> dict[str, Any]:
    """Return the prompt in TensorRT-LLM's form.

    Raises:
        BadPayload: The model's chat template does not take these messages.
    """
    if request.prompt_ids:
        return {"prompt_token_ids": list(request.prompt_ids)}
    if not (request.messages and has_template(tokenizer)):
        return {"prompt": request.prompt}
    messages = [{"role": one.role, "content": one.content} for one in request.messages]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        raise BadPayload(f"the chat template of the model refuses the messages: {error}") from error
    return {"prompt": text}


def has_template(tokenizer: Any) -> bool:
    """Whether messages need not be joined by us; it wraps the tokenizer that knows."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    return bool(getattr(inner, "chat_template", None))


def is_down(llm: Any) -> bool:
    """Whether it was shut down, by its owner or by an error that ended its executor.

    An error of one request and one of them all are raised in the same places; the second kind has
    shut the executor down before it is seen.
    """
    executor = getattr(llm, "_executor", llm)  # it says so nowhere else
    return executor is None or (executor is not llm and bool(executor.is_shutdown()))
