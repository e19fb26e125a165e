"""Between vLLM's words and ours: requests, outputs, errors."""

from __future__ import annotations

import importlib
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final

from streamkit.engines._base import Chunk, TokenLogprob
from streamkit.engines._request import GenerationRequest
from streamkit.errors import BadPayload, EngineFailed, RequestRefused, StreamkitError

_FINISHED: Final = {"stop": "stop", "length": "length", "repetition": "stop"}
_PLAIN: Final = (
    "temperature",
    "top_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
)
_RETRY_AFTER: Final = 1.0  # seconds; vLLM says none


def sampling_params(
    request: GenerationRequest, max_tokens: int | None, defaults: Mapping[str, Any]
) -> Any:
    """Return vLLM's ``SamplingParams``.

    Args:
        request: What is asked for.
        max_tokens: Of each choice; None leaves it to the defaults, then to the model's length.
        defaults: What the model's ``generation_config.json`` says.

    Raises:
        ValueError: A value is out of its range.
    """
    vllm = importlib.import_module("vllm.sampling_params")
    asked = {name: getattr(request.sampling, name) for name in _PLAIN}
    values = {"max_tokens": None, **defaults}
    values |= {name: value for name, value in asked.items() if value is not None}
    if max_tokens is not None:
        values["max_tokens"] = max_tokens
    try:
        return vllm.SamplingParams(
            n=request.n,
            stop=list(request.stop),
            output_kind=vllm.RequestOutputKind.DELTA,
            **values,
        )
    except Exception as error:  # its own kinds of error are no ValueError since 0.32
        raise ValueError(str(error)) from error


def prompt_of(request: GenerationRequest, tokenizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the prompt in vLLM's form, and keywords for ``generate()`` that go with it.

    Raises:
        BadPayload: The model's chat template does not take these messages.
    """
    if request.prompt_ids:
        return {"prompt_token_ids": list(request.prompt_ids)}, {}
    if not (request.messages and has_template(tokenizer)):
        return {"prompt": request.prompt}, {}
    messages = [{"role": one.role, "content": one.content} for one in request.messages]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        raise BadPayload(f"the chat template of the model refuses the messages: {error}") from error
    # The template has written the special tokens already.
    return {"prompt": text}, {"tokenization_kwargs": {"add_special_tokens": False}}


def has_template(tokenizer: Any) -> bool:
    """Whether messages need not be joined by us."""
    return bool(getattr(tokenizer, "chat_template", None))


def chunks_of(output: Any, likeliest: int | None) -> Generator[Chunk]:
    """Yield what one output of vLLM's holds of each choice.

    Args:
        output: A ``RequestOutput`` that holds what is new.
        likeliest: Alternatives of each token that were asked for.

    Raises:
        EngineFailed: vLLM ended a choice, and nobody here had asked for that.
    """
    for choice in output.outputs:
        reason = choice.finish_reason
        tokens = len(choice.token_ids)
        if reason is None:
            if tokens:
                yield Chunk(choice.text, tokens, choice.index, None, _logprobs(choice, likeliest))
            continue
        if reason not in _FINISHED:
            raise EngineFailed(
                f"vLLM ended choice {choice.index} with {reason!r}: it was paused, or somebody "
                "called its abort()"
            )
        yield Chunk(
            choice.text, tokens, choice.index, _FINISHED[reason], _logprobs(choice, likeliest)
        )


def _logprobs(choice: Any, likeliest: int | None) -> tuple[TokenLogprob, ...]:
    if likeliest is None or not choice.logprobs:
        return ()
    tokens = zip(choice.token_ids, choice.logprobs, strict=True)
    return tuple(_likelihood(token, place, likeliest) for token, place in tokens)


def _likelihood(token: int, place: Mapping[int, Any], likeliest: int) -> TokenLogprob:
    said = place[token]
    # vLLM adds the token itself where it is none of the likeliest.
    ranked = sorted(place.values(), key=lambda one: one.rank)[:likeliest]
    top = tuple((one.decoded_token or "", one.logprob) for one in ranked)
    return TokenLogprob(said.decoded_token or "", said.logprob, top)


def is_death(error: BaseException) -> bool:
    """Whether it says that the engine is dead."""
    return any(_is(one, "EngineDeadError") for one in _causes(error))


def in_our_words(error: Exception) -> Exception:
    """Return the error that says who has to act; itself where the engine failed.

    By the names of its kinds, which have moved between modules from version to version.
    """
    if isinstance(error, StreamkitError):
        return error
    for one in _causes(error):
        status = getattr(one, "http_status", None) or getattr(one, "status_code", None)
        if status in {429, 503}:
            return RequestRefused(str(one), retry_after=_RETRY_AFTER, status=int(status))
        if _is(one, "VLLMClientError") or isinstance(one, ValueError):
            return BadPayload(str(one))
    return error


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _is(error: BaseException, kind: str) -> bool:
    return any(base.__name__ == kind for base in type(error).__mro__)
