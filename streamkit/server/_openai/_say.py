"""Answers in the form of OpenAI's API: whole objects, and the chunks of a stream."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from streamkit.engines import Chunk, TokenLogprob
from streamkit.runner import Output

Node: TypeAlias = dict[str, Any]
Logprobs: TypeAlias = Sequence[TokenLogprob]

_END: Final = "stop"  # of a choice of which the engine does not say how it ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands at the head of an answer, and of each of its chunks.

    Attributes:
        id: The request's id.
        created: Seconds since 1970.
        model: The engine's name.
    """

    id: str
    created: int
    model: str


class Form(ABC):
    """One of the two forms; what they have in common is here."""

    prefix: ClassVar[str]
    whole: ClassVar[str]
    piece: ClassVar[str]

    def head(self, head: Head, kind: str) -> Node:
        """The fields of it."""
        id_ = f"{self.prefix}-{head.id}"
        return {"id": id_, "object": kind, "created": head.created, "model": head.model}

    def answer(self, head: Head, choices: Iterable[Chunk], usage: Node) -> Node:
        """A whole answer."""
        return {
            **self.head(head, self.whole),
            "choices": [self.choice(choice) for choice in choices],
            "usage": usage,
        }

    @abstractmethod
    def choice(self, choice: Chunk) -> Node:
        """One choice of a whole answer."""

    @abstractmethod
    def opening(self) -> Node | None:
        """What the first piece of a choice says, before its first text; None for nothing."""

    @abstractmethod
    def frame(self, text: object) -> Node:
        """The part of a piece that holds text."""

    @abstractmethod
    def closing(self) -> Node:
        """The part of the last piece of a choice, which holds none."""

    @abstractmethod
    def logprobs(self, logprobs: Logprobs, offset: int) -> Node:
        """How likely tokens were; the first begins after so many characters of its choice."""


class Chat(Form):
    """``/v1/chat/completions``."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    piece = "chat.completion.chunk"

    def choice(self, choice: Chunk) -> Node:
        """With a message."""
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {
            "index": choice.index,
            "message": message,
            "logprobs": self.logprobs(choice.logprobs, 0) if choice.logprobs else None,
            "finish_reason": choice.finish_reason or _END,
        }

    def opening(self) -> Node:
        """The role."""
        return {"delta": {"role": "assistant", "content": "", "refusal": None}}

    def frame(self, text: object) -> Node:
        """A delta."""
        return {"delta": {"content": text}}

    def closing(self) -> Node:
        """An empty one."""
        return {"delta": {}}

    def logprobs(self, logprobs: Logprobs, offset: int) -> Node:
        """Token by token."""
        content = [
            {
                **_token(each.token, each.logprob),
                "top_logprobs": [_token(token, logprob) for token, logprob in each.top],
            }
            for each in logprobs
        ]
        return {"content": content, "refusal": None}


class Text(Form):
    """``/v1/completions``."""

    prefix = "cmpl"
    whole = piece = "text_completion"

    def choice(self, choice: Chunk) -> Node:
        """With a text."""
        return {
            "index": choice.index,
            "text": choice.text,
            "logprobs": self.logprobs(choice.logprobs, 0) if choice.logprobs else None,
            "finish_reason": choice.finish_reason or _END,
        }

    def opening(self) -> None:
        """Nothing."""

    def frame(self, text: object) -> Node:
        """The text."""
        return {"text": text}

    def closing(self) -> Node:
        """An empty one."""
        return {"text": ""}

    def logprobs(self, logprobs: Logprobs, offset: int) -> Node:
        """Column by column."""
        offsets: list[int] = []
        for each in logprobs:
            offsets.append(offset)
            offset += len(each.token)
        return {
            "tokens": [each.token for each in logprobs],
            "token_logprobs": [each.logprob for each in logprobs],
            "top_logprobs": [dict(each.top) for each in logprobs],
            "text_offset": offsets,
        }


def usage_of(output: Output) -> Node:
    """What the whole request used."""
    return {
        "prompt_tokens": output.prompt_tokens,
        "completion_tokens": output.tokens,
        "total_tokens": output.prompt_tokens + output.tokens,
    }


class Pieces:
    """The chunks of one stream as bytes.

    All but the text is the same in every piece of a choice, and made once.

    Args:
        form: Of which route.
        head: Of the answer.
        choices: How many there are.
        wants_usage: Whether the last piece says what was used; all others say null then.
    """

    __slots__ = ("_choices", "_closed", "_form", "_head", "_opened", "_wants_usage")

    def __init__(self, form: Form, head: Head, *, choices: int, wants_usage: bool) -> None:
        self._form = form
        self._choices = choices
        self._head = form.head(head, form.piece)
        self._wants_usage = wants_usage
        self._opened: dict[int, _Choice] = {}
        self._closed: set[int] = set()

    def encode(self, chunk: Chunk) -> bytes:
        """A chunk of the engine's; the first and the last of a choice are several events."""
        choice = self._opened.get(chunk.index)
        if choice is not None and not (chunk.finish_reason or chunk.logprobs):
            return choice.text(chunk.text) if chunk.text else b""
        events = [] if choice else self._open(chunk.index)
        choice = self._opened[chunk.index]
        if chunk.logprobs:
            events.append(self._with_logprobs(chunk, choice))
        elif chunk.text:
            events.append(choice.text(chunk.text))
        if chunk.finish_reason:
            events.append(self._close(chunk.index, chunk.finish_reason))
        return b"".join(events)

    def end(self, output: Output) -> bytes:
        """What is left to say of a whole stream."""
        events: list[bytes] = []
        for index in range(self._choices):
            if index not in self._closed:
                events += [] if index in self._opened else self._open(index)
                events.append(self._close(index, _END))
        if self._wants_usage:
            events.append(event({**self._head, "choices": [], "usage": usage_of(output)}))
        return b"".join(events)

    def _open(self, index: int) -> list[bytes]:
        around = self._event(index, self._form.frame(_PLACE)).split(json.dumps(_PLACE).encode())
        self._opened[index] = _Choice(*around)
        opening = self._form.opening()
        return [] if opening is None else [self._event(index, opening)]

    def _close(self, index: int, reason: str) -> bytes:
        self._closed.add(index)
        return self._event(index, self._form.closing(), finish_reason=reason)

    def _with_logprobs(self, chunk: Chunk, choice: _Choice) -> bytes:
        logprobs = self._form.logprobs(chunk.logprobs, choice.told)
        choice.told += len(chunk.text)
        return self._event(chunk.index, self._form.frame(chunk.text), logprobs=logprobs)

    def _event(self, index: int, content: Node, **more: object) -> bytes:
        choice = {"index": index, **content, "logprobs": None, "finish_reason": None, **more}
        usage = {"usage": None} if self._wants_usage else {}
        return event({**self._head, "choices": [choice], **usage})


_PLACE: Final = "\0"  # of the text, while what stands around it is made; no id or name holds it


class _Choice:
    """What stands before and behind each text of a choice.

    Attributes:
        told: Characters of it that were told with their log probabilities.
    """

    __slots__ = ("_after", "_before", "told")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self.told = 0

    def text(self, text: str) -> bytes:
        return b"%b%b%b" % (self._before, json.dumps(text).encode(), self._after)


def event(value: Node) -> bytes:
    """One event; escaped, halves of a UTF-16 pair (a tokenizer cut it) meet in the client."""
    return b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode()


def _token(token: str, logprob: float) -> Node:
    raw = token.encode(errors="surrogatepass")
    return {"token": token, "logprob": logprob, "bytes": list(raw)}
