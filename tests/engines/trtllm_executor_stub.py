"""TensorRT-LLM's executor bindings as far as the adapter calls them, on a thread of their own.

Whoever asks for responses takes those of all requests. A cancel is looked at when a step begins:
what runs is answered with CANCELLED, what waits is only marked, and answered when it would begin.

Its names are compared with the published source's in test_trtllm_names.py.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any

STEP = 0.005
CHUNK = 512
PIECES = (b"a", b"\xc3", b"\xa9", b" ")  # two of them make one character
MODULES = ("tensorrt_llm", "tensorrt_llm.bindings", "tensorrt_llm.bindings.executor")


class FinishReason(Enum):
    NOT_FINISHED = 0
    END_ID = 1
    LENGTH = 3
    CANCELLED = 5


@dataclass(kw_only=True)
class SamplingConfig:
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    num_return_sequences: int | None = None


@dataclass
class OutputConfig:
    exclude_input_from_output: bool = False


@dataclass
class Request:
    input_token_ids: list[int]
    max_tokens: int
    streaming: bool = False
    sampling_config: SamplingConfig = field(default_factory=SamplingConfig)
    output_config: OutputConfig = field(default_factory=OutputConfig)
    end_id: int | None = None


@dataclass
class Result:
    is_final: bool
    output_token_ids: list[list[int]]
    finish_reasons: list[FinishReason]
    sequence_index: int
    is_sequence_final: bool


@dataclass
class Response:
    request_id: int
    result: Result | None
    error_msg: str = ""

    def has_error(self) -> bool:
        return bool(self.error_msg)


@dataclass(eq=False)
class Work:
    number: int
    request: Request
    prefilled: int = 0
    made: int = 0

    @property
    def choices(self) -> int:
        return self.request.sampling_config.num_return_sequences or 1


class Executor:
    """One slot; everything in it is for tests to look into."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.steps = 0
        self.broken: Exception | None = None
        self.deaf = False
        self.end_at: Callable[[Request], int] = lambda request: request.max_tokens
        self._lock = threading.Condition()
        self._waiting: list[Work] = []
        self._running: Work | None = None
        self._cancelled: set[int] = set()
        self._responses: list[Response] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ended = False
        self._thread.start()

    def enqueue_request(self, request: Request) -> int:
        with self._lock:
            self.requests.append(request)
            self._waiting.append(Work(len(self.requests), request))
            self._lock.notify_all()
            return len(self.requests)

    def cancel_request(self, id: int | None = None) -> None:  # noqa: A002 - theirs
        with self._lock:
            if id is not None:
                self._cancelled.add(id)

    def await_responses(self, timeout: timedelta | None = None) -> list[Response]:
        with self._lock:
            if self.broken is not None:
                raise self.broken
            if not self._responses:
                self._lock.wait(None if timeout is None else timeout.total_seconds())
            responses, self._responses = self._responses, []
            return responses

    def shutdown(self) -> None:
        with self._lock:
            self._ended = True
            self._lock.notify_all()
        self._thread.join()

    @property
    def idle(self) -> bool:
        return self._running is None and not self._waiting

    def fail(self, number: int, message: str) -> None:
        self._say(Response(number, None, message))

    def _run(self) -> None:
        while True:
            with self._lock:
                while not (self._ended or self._waiting or self._running):
                    self._lock.wait()
                if self._ended:
                    return
                self._admit()
            time.sleep(STEP)  # noqa: TID251 - it computes
            with self._lock:
                self._step()

    def _admit(self) -> None:
        if self._running is not None and self._hears(self._running):
            self._end(self._running)
        while self._waiting and self._running is None:
            self._running = self._waiting.pop(0)
            if self._hears(self._running):
                self._end(self._running)

    def _hears(self, work: Work) -> bool:
        return work.number in self._cancelled and not self.deaf

    def _end(self, work: Work) -> None:
        self._running = None
        for index in range(work.choices):
            self._tell(work, index, [], FinishReason.CANCELLED)

    def _step(self) -> None:
        work = self._running
        if work is None:
            return
        self.steps += 1
        if work.prefilled < len(work.request.input_token_ids):
            work.prefilled += CHUNK
            if work.prefilled < len(work.request.input_token_ids):
                return
        work.made += 1
        reason = FinishReason.NOT_FINISHED
        if work.made == work.request.max_tokens:
            reason = FinishReason.LENGTH
        elif work.made == self.end_at(work.request):
            reason = FinishReason.END_ID
        if reason is not FinishReason.NOT_FINISHED:
            self._running = None
        for index in range(work.choices):
            self._tell(work, index, [work.made - 1], reason)

    def _tell(self, work: Work, index: int, tokens: list[int], reason: FinishReason) -> None:
        ended = reason is not FinishReason.NOT_FINISHED
        final = ended and index == work.choices - 1
        self._say(Response(work.number, Result(final, [tokens], [reason], index, ended)))

    def _say(self, response: Response) -> None:
        with self._lock:  # a Condition's own lock may be taken again
            self._responses.append(response)
            self._lock.notify_all()


class Tokenizer:
    eos_token_id = 99

    def encode(self, text: str) -> list[int]:
        return [1] * len(text.split())

    def decode(self, token_ids: list[int]) -> str:
        return b"".join(PIECES[token % 4] for token in token_ids).decode(errors="replace")


def modules() -> dict[str, Any]:
    """Entries of ``sys.modules`` that make it what ``import tensorrt_llm`` finds."""
    return dict.fromkeys(MODULES, sys.modules[__name__])
