"""What an engine made and its reader has not taken: merged per choice, so that it has a bound."""

from __future__ import annotations

import anyio

from streamkit.errors import UsageBug

from ._base import Chunk, TokenLogprob, Usage

Logprobs = tuple[TokenLogprob, ...]


class _Unread:
    __slots__ = ("_texts", "finish_reason", "index", "logprobs", "tokens")

    def __init__(
        self, index: int, text: str, tokens: int, finish_reason: str | None, logprobs: Logprobs
    ) -> None:
        self.index = index
        self.logprobs = logprobs
        self._texts = [text]
        self.tokens = tokens
        self.finish_reason = finish_reason

    def merge(self, text: str, tokens: int, finish_reason: str | None, logprobs: Logprobs) -> None:
        self._texts.append(text)
        self.tokens += tokens
        self.logprobs += logprobs
        self.finish_reason = finish_reason

    def chunk(self) -> Chunk:
        text = self._texts[0] if len(self._texts) == 1 else "".join(self._texts)
        return Chunk(text, self.tokens, self.index, self.finish_reason, self.logprobs)


class Outbox:
    """Between an engine that never waits and one reader: one entry for each choice at most.

    An engine that pushes makes its tokens whether they are read or not, so that waiting for a slow
    reader would save nothing. What is not read is merged, as vLLM merges its deltas: the bound is
    what a request may make in all.
    """

    __slots__ = ("_choices", "_handed_over", "_made", "_waiter")

    def __init__(self) -> None:
        self._choices: dict[int, _Unread] = {}
        self._waiter: anyio.Event | None = None
        self._made = 0
        self._handed_over = 0

    def put(
        self,
        index: int,
        text: str,
        tokens: int,
        finish_reason: str | None,
        logprobs: Logprobs = (),
    ) -> None:
        """Keep a piece for the reader, and wake it."""
        self._made += tokens
        unread = self._choices.get(index)
        if unread is None:
            self._choices[index] = _Unread(index, text, tokens, finish_reason, logprobs)
        else:
            unread.merge(text, tokens, finish_reason, logprobs)
        if self._waiter is not None:
            self._waiter.set()

    def waste(self, tokens: int) -> None:
        """Count tokens that nobody will read."""
        self._made += tokens

    def take(self) -> Chunk:
        """Hand over what came first; there must be something."""
        unread = self._choices.pop(next(iter(self._choices)))
        self._handed_over += unread.tokens
        return unread.chunk()

    def clear(self) -> None:
        """Nobody reads any more; what is left counts as discarded."""
        self._choices.clear()

    async def wait(self) -> None:
        """Return when there is something to take, or :meth:`wake` was called.

        Raises:
            UsageBug: Another task waits already.
        """
        if self._waiter is not None:
            raise UsageBug("two tasks read one generation; it has one reader")
        self._waiter = waiter = anyio.Event()
        try:
            await waiter.wait()
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Have the reader look again: something else has changed."""
        if self._waiter is not None:
            self._waiter.set()

    def usage(self, prompt_tokens: int) -> Usage:
        """The books; what is still unread is neither handed over nor discarded."""
        unread = sum(unread.tokens for unread in self._choices.values())
        return Usage(
            prompt_tokens=prompt_tokens,
            handed_over=self._handed_over,
            discarded=self._made - self._handed_over - unread,
        )

    def __bool__(self) -> bool:
        return bool(self._choices)

    def __repr__(self) -> str:
        return f"<Outbox {self._made} made, {self._handed_over} handed over>"
