"""vLLM's engine as far as a model class sees it.

As the real one: nothing happens before the first output is asked for, an output holds all text so
far, an unknown id is aborted in silence, a generator that is cancelled or closed aborts by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import engine


@dataclass
class AsyncEngineArgs:
    model: str


@dataclass
class SamplingParams:
    max_tokens: int


@dataclass
class CompletionOutput:
    text: str


@dataclass
class RequestOutput:
    outputs: list[CompletionOutput]


class AsyncLLMEngine:
    def __init__(self, args: AsyncEngineArgs) -> None:
        self.args = args
        self._jobs: dict[str, engine.Job] = {}

    @classmethod
    def from_engine_args(cls, args: AsyncEngineArgs) -> AsyncLLMEngine:
        return cls(args)

    async def generate(
        self, prompt: str, sampling_params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        job = self._jobs[request_id] = engine.start(prompt)
        text, ended = "", False
        try:
            async for word in job.words():
                text += word
                yield RequestOutput([CompletionOutput(text)])
            ended = True
        finally:
            del self._jobs[request_id]
            if not ended:
                job.stop()

    async def abort(self, request_id: str) -> None:
        if job := self._jobs.get(request_id):
            job.stop()
