"""Between SGLang's words and ours: requests, ids, the reason of an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamkit.engines._job import Job
from streamkit.engines._request import GenerationRequest, Sampling
from streamkit.errors import BadPayload, EngineFailed, RequestRefused

CHOICES_AT_MOST: Final = 1000
_PLAIN: Final = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_RETRY_AFTER: Final = 1.0  # seconds; SGLang says none


def ids_of(job_id: str, choices: int) -> list[str]:
    """The id of each choice: as long as every other, for SGLang aborts whatever begins with one.

    One of our own for each: for ``n`` in its sampling parameters SGLang makes ids that nobody is
    told.
    """
    return [f"{job_id}-{index:03}" for index in range(choices)]


def arguments_of(job: Job, tokenizer: Any) -> dict[str, Any]:
    """Return the keywords of ``async_generate()``; lists where there are several choices.

    Raises:
        BadPayload: The model's chat template does not take these messages.
    """
    request, several = job.request, job.request.n > 1
    prompt = prompt_of(request, tokenizer)
    ids = ids_of(job.id, request.n)
    params = [sampling_params(request, job.max_tokens, index) for index in range(request.n)]
    keywords: dict[str, Any] = {"stream": True}
    keywords["rid"] = ids if several else ids[0]
    keywords["sampling_params"] = params if several else params[0]
    name = "prompt" if isinstance(prompt, str) else "input_ids"
    keywords[name] = [prompt] * request.n if several else prompt
    if request.sampling.logprobs is not None:
        keywords |= {"return_logprob": True, "top_logprobs_num": request.sampling.logprobs}
    return keywords


def sampling_params(
    request: GenerationRequest, max_tokens: int | None, index: int
) -> dict[str, Any]:
    """Return the sampling parameters of one choice, which SGLang takes as a mapping."""
    sampling: Sampling = request.sampling
    values: dict[str, Any] = {name: getattr(sampling, name) for name in _PLAIN}
    if sampling.seed is not None:
        values["sampling_seed"] = sampling.seed + index  # else all choices were the same
    if request.stop:
        values["stop"] = list(request.stop)
    asked = {name: value for name, value in values.items() if value is not None}
    return {"max_new_tokens": max_tokens, **asked}  # its own default is 128


def prompt_of(request: GenerationRequest, tokenizer: Any) -> str | list[int]:
    """Return the prompt as text, or as token ids.

    Raises:
        BadPayload: The model's chat template does not take these messages.
    """
    if request.prompt_ids:
        return list(request.prompt_ids)
    if not (request.messages and has_template(tokenizer)):
        return request.prompt
    messages = [{"role": one.role, "content": one.content} for one in request.messages]
    try:
        # Ids, for the template has written the special tokens, and SGLang would write them again.
        ids: list[int] = tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False
        )
    except Exception as error:
        raise BadPayload(f"the chat template of the model refuses the messages: {error}") from error
    return list(ids)


def has_template(tokenizer: Any) -> bool:
    """Whether messages need not be joined by us."""
    return bool(getattr(tokenizer, "chat_template", None))


def end_of(reason: Mapping[str, Any] | None) -> str | None:
    """Return our word for why a choice ended, or None: it goes on.

    Raises:
        BadPayload: SGLang refused the request for what is in it.
        RequestRefused: It has no room.
        EngineFailed: It ended it, and nobody here had asked for that.
    """
    if reason is None:
        return None
    if reason["type"] in {"stop", "length"}:
        return str(reason["type"])
    message = str(reason.get("message") or "no reason given")
    status = int(reason.get("status_code") or 0)
    if 400 <= status < 500 and status != 429:
        raise BadPayload(message)
    if status in {429, 503}:
        raise RequestRefused(message, retry_after=_RETRY_AFTER, status=status)
    raise EngineFailed(f"SGLang ended a choice with {reason['type']!r}: {message}")
