"""Between OpenAI's words and ours: what an upstream is asked, and what its events say."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Final, cast

import anyio

from streamkit.engines._base import Chunk, TokenLogprob
from streamkit.engines._request import GenerationRequest
from streamkit.errors import EngineFailed

from ._refusal import refusal
from ._sse import EventDecoder

CHAT: Final = "/chat/completions"
TEXT: Final = "/completions"
LAST_WORDS: Final = 1.0  # seconds from the last finish reason to the end of the stream

_PLAIN: Final = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")
# TGI has words of its own. What is in no row is no end of a whole answer: "abort", "error".
_FINISHED: Final = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "content_filter": "content_filter",
}
_MADE: Final = ("content", "reasoning_content", "reasoning", "text")  # fields that hold tokens


def path_of(request: GenerationRequest) -> str:
    """Which of the two routes takes it."""
    return CHAT if request.messages else TEXT


def body_of(
    request: GenerationRequest, model: str | None, max_tokens: int | None
) -> dict[str, Any]:
    """Return the body of the request; always for a stream, which is what closing stops."""
    body: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    if request.messages:
        body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
    else:
        body["prompt"] = list(request.prompt_ids) or request.prompt
    sampling = request.sampling
    asked: dict[str, Any] = {name: getattr(sampling, name) for name in _PLAIN}
    asked |= {"model": model, "max_tokens": max_tokens, "stop": list(request.stop) or None}
    if request.n > 1:
        asked["n"] = request.n
    if request.messages and sampling.logprobs is not None:
        asked |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    else:
        asked["logprobs"] = sampling.logprobs
    return body | {name: value for name, value in asked.items() if value is not None}


class Answer:
    """One answer as it streams in: its chunks, and whether it is whole.

    Attributes:
        prompt_tokens: By the upstream's own count, or None.
        tokens: The same, of all choices.
        finished: Whether every choice has a finish reason.
    """

    __slots__ = ("_counted", "_done", "_last", "_open", "finished", "prompt_tokens", "tokens")

    def __init__(self, choices: int) -> None:
        self._open = set(range(choices))
        self._counted = 0
        self._done = False
        self._last: Chunk | None = None
        self.finished = False
        self.prompt_tokens: int | None = None
        self.tokens: int | None = None

    @property
    def complete(self) -> bool:
        """Whether the upstream said that nothing more comes."""
        return self._done

    def read(self, data: str) -> list[Chunk]:
        """Return the chunks that an event holds; the very last one is kept for :meth:`end`.

        Raises:
            EngineFailed: It is no event of OpenAI's, tells of an error, or of an end that is none.
        """
        if self._done or data == "[DONE]":
            self._done = True
            return []
        event = _parse(data)
        if error := event.get("error"):
            raise _told(error)
        try:
            self._read_usage(event.get("usage"))
            chunks = [self._chunk(choice) for choice in event.get("choices") or ()]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _strange(data) from error
        return [chunk for chunk in chunks if chunk is not None]

    def end(self) -> list[Chunk]:
        """What was kept: now the upstream has said how many tokens it made."""
        if self._last is None:
            return []
        missing = (self.tokens or 0) - self._counted
        return [replace(self._last, tokens=self._last.tokens + max(0, missing))]

    def _read_usage(self, usage: Mapping[str, Any] | None) -> None:
        if usage is not None:
            self.prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self.tokens = int(usage.get("completion_tokens") or 0)

    def _chunk(self, choice: Mapping[str, Any]) -> Chunk | None:
        said: Mapping[str, Any] = choice.get("delta") or choice
        index = int(choice.get("index") or 0)
        text = said.get("content") or said.get("text") or ""
        if not isinstance(text, str):
            raise TypeError(text)
        logprobs = _logprobs(choice.get("logprobs"))
        # An event is a token where nothing says otherwise; the usage at the end puts that right.
        tokens = len(logprobs) or int(any(said.get(name) for name in _MADE))
        self._counted += tokens
        reason = choice.get("finish_reason")
        if index not in self._open or not (tokens or reason):
            return None
        if reason is None:
            return Chunk(text, tokens, index, None, logprobs)
        if reason not in _FINISHED:
            raise EngineFailed(f"the upstream ended choice {index} with {reason!r}")
        self._open.discard(index)
        chunk = Chunk(text, tokens, index, _FINISHED[reason], logprobs)
        if self._open:
            return chunk
        self._last, self.finished = chunk, True
        return None

    def __repr__(self) -> str:
        return f"<Answer {self._counted} tokens, {len(self._open)} choices open>"


async def read(pieces: AsyncIterator[bytes], answer: Answer) -> AsyncGenerator[Chunk]:
    """Yield the chunks of an answer, of a stream that the caller closes.

    Behind the last finish reason come the usage and the end. Both are waited for, a second at most:
    a connection that was read to its end can be used again.

    Raises:
        EngineFailed: The stream broke, or is none.
    """
    decoder = EventDecoder()
    async for piece in pieces:
        for data in decoder.feed(piece):
            for chunk in answer.read(data):
                yield chunk
        if answer.finished or answer.complete:
            break
    with anyio.move_on_after(LAST_WORDS):
        async for piece in pieces:
            for data in decoder.feed(piece):
                answer.read(data)
    for chunk in answer.end():
        yield chunk


def _parse(data: str) -> dict[str, Any]:
    try:
        event: Any = json.loads(data)
    except ValueError as error:
        raise _strange(data) from error
    if isinstance(event, dict):
        return cast("dict[str, Any]", event)
    raise _strange(data)


def _strange(data: str) -> EngineFailed:
    return EngineFailed(f"the upstream sent an event that is none of OpenAI's: {data[:200]!r}")


def _told(error: Any) -> Exception:
    """An error in a stream whose status was 200 already; vLLM tells the status as its code."""
    if not isinstance(error, dict):
        return refusal(500, str(error))
    fields = cast("dict[str, Any]", error)
    code = fields.get("code")
    return refusal(code if isinstance(code, int) else 500, str(fields.get("message")))


def _logprobs(said: Any) -> tuple[TokenLogprob, ...]:
    if not said:
        return ()
    if content := said.get("content"):
        return tuple(
            TokenLogprob(
                each["token"],
                each["logprob"],
                tuple((top["token"], top["logprob"]) for top in each.get("top_logprobs") or ()),
            )
            for each in content
        )
    tokens: list[str] = said.get("tokens") or []
    logprobs: list[float | None] = said.get("token_logprobs") or [None] * len(tokens)
    tops: list[dict[str, float] | None] = said.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(token, logprob or 0.0, tuple((top or {}).items()))
        for token, logprob, top in zip(tokens, logprobs, tops, strict=True)
    )
