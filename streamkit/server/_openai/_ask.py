"""What clients of OpenAI's API may ask, as far as an engine can answer it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field
from pydantic_core import PydanticCustomError

from streamkit.engines import GenerationRequest, Message, Sampling
from streamkit.server._problems import InvalidRequest

CHOICES_LIMIT: Final = 128  # OpenAI's, of n
_STOP_LIMIT: Final = 256  # characters: each token is compared with every beginning of a stop string
UNSUPPORTED: Final = "unsupported_parameter"
"""OpenAI's code for what it knows and this model has not."""

_SAMPLING: Final = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")
# Values with which an engine does what it does without them.
_NEUTRAL: Final = {"top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}


def _only(*harmless: object) -> BeforeValidator:
    """A field that would change the answer, and which no engine has: these values are no wish."""

    def check(value: object) -> object:
        if value is None or any(value == each and type(value) is type(each) for each in harmless):
            return None
        raise PydanticCustomError(UNSUPPORTED, "is not supported here")

    return BeforeValidator(check)


def _read_stops(value: object) -> object:
    if value is None:
        return ()
    texts = cast("list[object]", value) if isinstance(value, list) else [value]
    if len(texts) > 4 or not all(isinstance(text, str) and text for text in texts):
        raise PydanticCustomError("stop", "must be a text, or up to four, none of them empty")
    if any(len(text) > _STOP_LIMIT for text in cast("list[str]", texts)):
        context = {"limit": _STOP_LIMIT}
        raise PydanticCustomError("stop", "must have {limit} characters at most, each", context)
    return tuple(texts)


def _read_prompts(value: object) -> object:
    """One prompt or many, each a text or token ids."""
    many = cast("list[object]", value) if isinstance(value, list) else [value]
    if many and all(type(each) is int for each in many):
        many = [many]
    prompts = tuple(tuple(cast("list[object]", p)) if isinstance(p, list) else p for p in many)
    if not prompts or not all(_is_prompt(prompt) for prompt in prompts):
        raise PydanticCustomError(
            "prompt", "must be a text, a list of texts, token ids or a list of those; none is empty"
        )
    return prompts


def _is_prompt(prompt: object) -> bool:
    if not isinstance(prompt, tuple):
        return isinstance(prompt, str) and prompt != ""
    ids = cast("tuple[object, ...]", prompt)
    return bool(ids) and all(type(each) is int and each >= 0 for each in ids)


def _read_content(value: object) -> object:
    """The text of a message, which may come in parts."""
    if not isinstance(value, list):
        return value
    texts: list[str] = []
    for part in cast("list[object]", value):
        fields = cast("dict[str, object]", part) if isinstance(part, dict) else {}
        text = fields.get("text")
        if fields.get("type") != "text" or not isinstance(text, str):
            raise PydanticCustomError("content", "holds a part that is no text")
        texts.append(text)
    return "".join(texts)


Ignored: TypeAlias = Any
Count: TypeAlias = Annotated[int, Field(ge=1)] | None


class StreamOptions(BaseModel):
    """How a stream is told."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class ChatMessage(BaseModel):
    """One message; what clients send back of an answer is understood, as long as it is text."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_read_content)]
    name: Ignored = None
    annotations: Ignored = None
    refusal: Annotated[None, _only()] = None
    audio: Annotated[None, _only()] = None
    tool_calls: Annotated[None, _only([])] = None
    function_call: Annotated[None, _only()] = None

    def understood(self) -> Message:
        """As engines have it; templates know no developer, which is OpenAI's later word."""
        return Message("system" if self.role == "developer" else self.role, self.content)


class Ask(BaseModel):
    """What both routes take."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    max_tokens: Count = None
    n: Annotated[int, Field(ge=1, le=CHOICES_LIMIT)] | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_read_stops)] = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None

    user: Ignored = None
    logit_bias: Annotated[None, _only({})] = None

    @property
    def choices(self) -> int:
        """Choices of each prompt."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to say what it used."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def limit(self) -> tuple[str, int | None]:
        """The most tokens of a choice, and the field that says so."""
        return "max_tokens", self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Alternatives of each token whose log probabilities are to be told; None for not even its.

        Raises:
            InvalidRequest: That makes no sense.
        """
        raise NotImplementedError

    def requests(self, takes: frozenset[str], limit: int) -> list[GenerationRequest]:
        """What the engine is asked, one request for each prompt.

        Args:
            takes: What the engine heeds.
            limit: The most tokens that may be asked for.

        Raises:
            InvalidRequest: That makes no sense, or is more than is allowed.
        """
        field, tokens = self.limit
        if tokens is not None and tokens > limit:
            message = f"{field}: input should be less than or equal to {limit}"
            raise InvalidRequest(message, param=field)
        if self.stream_options is not None and not self.stream:
            message = "stream_options: is only for a request with stream: true"
            raise InvalidRequest(message, param="stream_options")
        options: dict[str, Any] = {
            "max_tokens": tokens,
            "n": self.choices,
            "stop": self.stop,
            "sampling": self._sampling(takes),
        }
        return [GenerationRequest(**prompt, **options) for prompt in self._prompts()]

    def _prompts(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _sampling(self, takes: frozenset[str]) -> Sampling:
        asked: dict[str, Any] = {"logprobs": self.alternatives}
        for name in _SAMPLING:
            value = getattr(self, name)
            asked[name] = None if name not in takes and value == _NEUTRAL.get(name) else value
        return Sampling(**asked)


class ChatAsk(Ask):
    """The body of ``POST /v1/chat/completions``."""

    # The first mistake is enough: a million of them, two bytes each, took 0.8 GB (measured).
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, strict=False), FailFast()]
    max_completion_tokens: Count = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    metadata: Ignored = None
    parallel_tool_calls: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None

    audio: Annotated[None, _only()] = None
    function_call: Annotated[None, _only("none", "auto")] = None
    functions: Annotated[None, _only([])] = None
    modalities: Annotated[None, _only(["text"])] = None
    response_format: Annotated[None, _only({"type": "text"})] = None
    tool_choice: Annotated[None, _only("none", "auto")] = None
    tools: Annotated[None, _only([])] = None
    web_search_options: Annotated[None, _only()] = None

    @property
    def limit(self) -> tuple[str, int | None]:
        """The newer name has the last word."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """A switch, and a number beside it."""
        if self.top_logprobs is not None and not self.logprobs:
            message = "top_logprobs: is only for a request with logprobs: true"
            raise InvalidRequest(message, param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    def _prompts(self) -> list[dict[str, Any]]:
        return [{"messages": tuple(message.understood() for message in self.messages)}]


class CompletionAsk(Ask):
    """The body of ``POST /v1/completions``."""

    prompt: Annotated[tuple[Any, ...], BeforeValidator(_read_prompts)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    best_of: Annotated[None, _only(1)] = None
    echo: Annotated[None, _only(False)] = None
    suffix: Annotated[None, _only("")] = None

    @property
    def alternatives(self) -> int | None:
        """The number alone."""
        return self.logprobs

    def _prompts(self) -> list[dict[str, Any]]:
        if len(self.prompt) * self.choices > CHOICES_LIMIT:
            message = (
                f"prompt: {len(self.prompt)} prompts with n={self.choices} are more than "
                f"{CHOICES_LIMIT} choices; send several requests"
            )
            raise InvalidRequest(message, param="prompt")
        return [
            {"prompt": prompt} if isinstance(prompt, str) else {"prompt_ids": prompt}
            for prompt in self.prompt
        ]
