"""What the continuous batching says of one request's choices, until its reader takes it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import anyio

from streamkit.engines._base import Chunk
from streamkit.engines._job import Job
from streamkit.errors import EngineFailed

from ._model import TextModel
from ._text import Choice


class Answers:
    """The choices of one request. Each output holds all tokens so far, so that the last is enough.

    Attributes:
        ids: Of the manager's requests, one for each choice: as long as all others, and in no other.
        limit: Tokens of each choice, at most.
        made: Tokens that came, also those that came after a cancel.
        heard: Whether there is something to take.
        failed: Whether one of them failed.
    """

    def __init__(self, job: Job, model: TextModel, limit: int) -> None:
        request = job.request
        self.ids = [f"{job.id}-{index:04x}" for index in range(request.n)]
        self.limit = limit
        self.made = 0
        self.heard = False
        self.failed = False
        self._job = job
        self._choices = [
            Choice(index, model.decode, request.stop, model.ends, limit)
            for index in range(request.n)
        ]
        self._outputs: list[Any] = [None] * request.n  # the latest
        self._taken = [0] * request.n  # tokens
        self._ended: list[str] = []
        self._event = anyio.Event()

    @property
    def done(self) -> bool:
        """Whether all have ended."""
        return all(choice.done for choice in self._choices)

    @property
    def unfinished(self) -> list[str]:
        """Those of which the manager has not said that they ended."""
        both = zip(self.ids, self._outputs, strict=True)
        return [one for one, output in both if output is None or not output.is_finished()]

    def hear(self, index: int, output: Any) -> None:
        """The manager's word: the tokens of a choice so far."""
        before = self._outputs[index]
        self.made += len(output.generated_tokens) - len(before.generated_tokens if before else ())
        self._job.made = self.made
        self._outputs[index] = output
        self.failed |= output.error is not None
        self.heard = True
        self._event.set()

    async def wait(self) -> None:
        """Return when there is something to take."""
        await self._event.wait()

    def take(self) -> Generator[Chunk]:
        """Yield what is new.

        Raises:
            EngineFailed: The manager failed one of them.
        """
        self.heard, self._event = False, anyio.Event()
        for index, (choice, output) in enumerate(zip(self._choices, self._outputs, strict=True)):
            if output is not None and not choice.done:
                yield from self._take(index, choice, output)

    def take_ended(self) -> list[str]:
        """Return those that ended here, and which the manager would go on with."""
        ended, self._ended = self._ended, []
        return ended

    def _take(self, index: int, choice: Choice, output: Any) -> Generator[Chunk]:
        if output.error is not None:
            raise EngineFailed(f"transformers failed choice {index}: {output.error}")
        tokens = output.generated_tokens[self._taken[index] :]
        self._taken[index] += len(tokens)
        for token in tokens:
            yield choice.add(token)
            if choice.done:
                break
        if output.is_finished() and not choice.done:
            yield choice.finish()
        elif choice.done and not output.is_finished():
            self._ended.append(self.ids[index])

    def __repr__(self) -> str:
        return f"<Answers {self._choices}>"
