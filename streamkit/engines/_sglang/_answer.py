"""What is new in SGLang's outputs, each of which holds all text of one choice so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamkit.engines._base import Chunk, TokenLogprob
from streamkit.engines._held_back import HeldBack
from streamkit.engines._job import Job

from ._words import end_of


class _Choice:
    __slots__ = ("characters", "text", "tokens")

    def __init__(self) -> None:
        self.text = ""
        self.characters = 0  # of it that were handed on
        self.tokens = 0


class Answer:
    """One answer while it grows.

    Args:
        job: What is generated.
        decode: The text of some token ids.
        incremental: Whether an output holds only what is new (``incremental_streaming_output``).
    """

    __slots__ = ("_choices", "_decode", "_held_back", "_incremental", "_job")

    def __init__(self, job: Job, decode: Callable[[list[int]], str], *, incremental: bool) -> None:
        self._job = job
        self._decode = decode
        self._incremental = incremental
        self._choices = [_Choice() for _ in range(job.request.n)]
        self._held_back = HeldBack(job.request.stop)

    def chunk(self, output: dict[str, Any]) -> Chunk | None:
        """Return what an output holds of its choice that was not handed on; None for nothing.

        Raises:
            StreamkitError: SGLang ended it; says whose fault that is.
        """
        meta = output["meta_info"]
        self._job.counted_prompt(int(meta.get("prompt_tokens") or 0))
        index = int(output.get("index", 0))
        choice = self._choices[index]
        reason = end_of(meta["finish_reason"])
        text = choice.text + output["text"] if self._incremental else str(output["text"])
        end = len(text) if reason is not None else self._held_back.certain(text)
        tokens = int(meta["completion_tokens"])
        new = Chunk(
            text[choice.characters : end],
            max(0, tokens - choice.tokens),
            index,
            reason,
            self._logprobs(meta, choice.tokens),
        )
        # A stop string that was found is taken out of the text.
        choice.text, choice.tokens = text, max(tokens, choice.tokens)
        choice.characters = max(end, choice.characters)
        return new if new.tokens or reason is not None else None

    def _logprobs(self, meta: dict[str, Any], since: int) -> tuple[TokenLogprob, ...]:
        likeliest = self._job.request.sampling.logprobs
        if likeliest is None:
            return ()
        begin = 0 if self._incremental else since
        said: list[Any] = meta["output_token_logprobs"][begin:]
        top: list[Any] = meta["output_top_logprobs"][begin:] if likeliest else [()] * len(said)
        return tuple(
            TokenLogprob(
                self._decode([token]),
                logprob,
                tuple((self._decode([other]), value) for value, other, _ in others or ()),
            )
            for (logprob, token, _), others in zip(said, top, strict=True)
        )
