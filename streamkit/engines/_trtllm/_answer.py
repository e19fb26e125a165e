"""What is new in a handle that TensorRT-LLM yields again and again, each time with everything."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from streamkit.engines._base import Chunk, TokenLogprob
from streamkit.engines._held_back import HeldBack
from streamkit.engines._job import Job
from streamkit.errors import EngineFailed

_FINISHED: Final = ("stop", "length")


class _Choice:
    """How much of one choice was handed on."""

    __slots__ = ("characters", "ended", "tokens")

    def __init__(self) -> None:
        self.characters = 0
        self.tokens = 0
        self.ended = False


class Answer:
    """One answer while it grows.

    TensorRT-LLM has fields for what is new (``text_diff``, ``token_ids_diff``). They are not used:
    the one object that it yields holds what is new since *its* last turn, so that a choice of
    ``n`` > 1 whose turn it was not says once more what it had said.

    Args:
        job: What is generated.
        decode: The text of some token ids.
    """

    __slots__ = ("_choices", "_decode", "_held_back", "_job")

    def __init__(self, job: Job, decode: Callable[[list[int]], str]) -> None:
        self._job = job
        self._decode = decode
        self._choices = [_Choice() for _ in range(job.request.n)]
        self._held_back = HeldBack(job.request.stop)

    def chunks(self, handle: Any) -> Generator[Chunk]:
        """Yield what was not handed on yet.

        Raises:
            EngineFailed: A choice was ended, and nobody here had asked for that.
        """
        self._job.made = sum(
            max(choice.tokens, len(output.token_ids))
            for choice, output in zip(self._choices, handle.outputs, strict=True)
        )
        for output in handle.outputs:
            choice = self._choices[int(output.index)]
            if choice.ended:
                continue
            chunk = self._new(choice, output, self._reason(output, over=handle.finished))
            if chunk.tokens or chunk.finish_reason is not None:
                yield chunk

    def _reason(self, output: Any, *, over: bool) -> str | None:
        said = output.finish_reason
        if said in _FINISHED:
            return str(said)
        if self._job.cancelled:
            return None
        if said is not None:
            raise EngineFailed(
                f"TensorRT-LLM ended choice {output.index} with {said!r}: it ran out of its time, "
                "or somebody called its abort()"
            )
        if not over or len(self._choices) == 1:
            return None
        # Of several choices it names the end of that alone which ended last.
        full = self._job.max_tokens is not None and len(output.token_ids) >= self._job.max_tokens
        return "length" if full else "stop"

    def _new(self, choice: _Choice, output: Any, reason: str | None) -> Chunk:
        text: str = output.text
        end = len(text) if reason is not None else self._held_back.certain(text)
        tokens: list[int] = output.token_ids[choice.tokens :]
        chunk = Chunk(
            text[choice.characters : end], len(tokens), output.index, reason, self._logprobs(output)
        )
        # Never less: a stop string that was found is taken out of its text and of its ids.
        choice.characters = max(choice.characters, end)
        choice.tokens += len(tokens)
        choice.ended = reason is not None
        return chunk

    def _logprobs(self, output: Any) -> tuple[TokenLogprob, ...]:
        likeliest = self._job.request.sampling.logprobs
        if likeliest is None:
            return ()
        since = self._choices[int(output.index)].tokens
        places = zip(output.token_ids[since:], output.logprobs[since:], strict=False)
        return tuple(self._likelihood(token, place, likeliest) for token, place in places)

    def _likelihood(self, token: int, place: Mapping[int, Any], likeliest: int) -> TokenLogprob:
        # It adds the token itself where it is none of the likeliest.
        ranked = sorted(place.items(), key=lambda one: one[1].rank)[:likeliest]
        top = tuple((self._decode([each]), said.logprob) for each, said in ranked)
        return TokenLogprob(self._decode([token]), place[token].logprob, top)
