"""What can be asked of an engine, in words that fit all; which of them it takes, it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: ``"system"``, ``"user"`` or ``"assistant"``.
        content: Its text.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. None leaves it to the engine.

    The names and their ranges are those of OpenAI's API.

    Attributes:
        temperature: 0 always takes the likeliest token.
        top_p: The likeliest tokens that have this much probability together.
        seed: The same seed, prompt and engine give the same text, as far as the engine can.
        frequency_penalty: Against tokens by how often the text has them.
        presence_penalty: Against tokens that the text has.
        logprobs: Have each token's log probability told, and those of so many alternatives.
    """

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: int | None = None


_SAMPLING: Final = tuple(field.name for field in fields(Sampling))


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to generate.

    Attributes:
        prompt: The text that comes before. Where there are only messages, they are joined to it, so
            that an engine without a chat template has a prompt all the same.
        prompt_ids: The same as the engine's own token ids, in the place of a text.
        messages: A conversation to go on with; an engine that takes it applies its own template.
        max_tokens: Tokens to make at most, for each choice; None leaves it to the engine.
        n: Choices, generated side by side.
        stop: Texts that end a choice, and are not part of it.
        sampling: How tokens are chosen.

    Raises:
        ValueError: A number is below 1, or a text to stop at is empty. What is too much, the engine
            says in ``open()``.
    """

    prompt: str = ""
    prompt_ids: tuple[int, ...] = ()
    messages: tuple[Message, ...] = ()
    max_tokens: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")
        if not all(self.stop):
            raise ValueError("stop must not hold an empty text")
        if self.messages and not self.prompt:
            object.__setattr__(self, "prompt", join_messages(self.messages))

    @property
    def options(self) -> frozenset[str]:
        """What it asks for that an engine may not have: the words of ``Capabilities.takes``."""
        sampling = self.sampling
        asked = {name for name in _SAMPLING if getattr(sampling, name) is not None}
        asked |= {name for name in ("prompt_ids", "stop") if getattr(self, name)}
        return frozenset(asked)


def join_messages(messages: Iterable[Message]) -> str:
    """The template for engines that have none: a line ``role: content`` each, then the answer's."""
    lines = [f"{message.role}: {message.content}\n" for message in messages]
    return "".join([*lines, "assistant:"])
