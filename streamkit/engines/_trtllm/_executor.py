"""``TensorRTExecutorEngine``: the executor bindings, by id, their responses read in a thread."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any, Final

import anyio
import anyio.to_thread

from streamkit._core import current_loop
from streamkit.engines._async_engine import AsyncEngine
from streamkit.engines._base import Capabilities, Chunk, Proof
from streamkit.engines._job import Job
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._request import GenerationRequest
from streamkit.errors import EngineFailed

from ._engine import ANSWER_LIMIT, SILENCE
from ._words import choosing

PATIENCE: Final = timedelta(milliseconds=50)  # of one call for responses; it lets go of the GIL
DEFAULT_MAX_TOKENS: Final = 256  # the executor must be told one

_CAPABILITIES: Final = Capabilities(
    cancel_queued=False,
    cancel_prefill="none",
    extra_steps=2,  # one that runs, and one on its way to us: tokens are counted where they arrive
    answers_cancel="running",
    early_cancel_safe=True,
    proof=Proof.CLOSED,
    takes=frozenset(
        {"prompt_ids", "temperature", "top_p", "seed", "frequency_penalty", "presence_penalty"}
    ),
)
_FINISHED: Final = {"END_ID": "stop", "STOP_WORDS": "stop", "LENGTH": "length"}


class TensorRTExecutorEngine(AsyncEngine):
    """TensorRT-LLM's ``tensorrt_llm.bindings.executor.Executor``, which stays the caller's.

    A cancel calls ``cancel_request(id)`` in the turn of the cancel. The executor looks at it when
    its next step begins, and answers for what runs; one that waits it looks at when it would have
    begun. That is why one that has said nothing yet is given half of ``limits.stop_bound``, and
    then no more is claimed than ``closed``, as by :class:`TensorRTLLMEngine`.

    Args:
        executor: It must be used by nobody else: whoever asks for responses takes those of all.
        tokenizer: Its model's, with ``encode()`` and ``decode()``; ``eos_token_id`` ends an answer.
        name: Its name in logs and metrics.
        limits: How long the ladder waits for a proof of stop.
    """

    closing_proves = Proof.SENT  # what runs on would do so without a reader as well
    default_max_tokens: int | None = DEFAULT_MAX_TOKENS

    def __init__(
        self,
        executor: object,
        tokenizer: object,
        *,
        name: str = "trtllm-executor",
        limits: LadderLimits | None = None,
    ) -> None:
        super().__init__(name, _CAPABILITIES, limits)
        self._executor: Any = executor
        self._tokenizer: Any = tokenizer
        self._inboxes: dict[int, _Inbox] = {}
        self._reading: anyio.Event | None = None  # set when its task has ended

    def check(self, request: GenerationRequest) -> None:
        """Raise ValueError when the executor could never serve such a request."""
        if not (request.prompt or request.prompt_ids):
            raise ValueError("the prompt is empty")

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        """Yield what the executor makes of ``job``; closing it cancels nothing, only its abort."""
        executor = self._executor
        request = self._request(job)
        number: int = executor.enqueue_request(request)
        job.registered(
            lambda: executor.cancel_request(number), drain=SILENCE * self.limits.stop_bound
        )
        job.counted_prompt(len(request.input_token_ids))
        inbox = self._inboxes[number] = _Inbox()
        self._read_on()
        began = final = False
        made, texts = 0, [_GrowingText(self._tokenizer) for _ in range(job.request.n)]
        try:
            while not final:
                result = await inbox.next()
                final = bool(result.is_final)
                if not (began or job.cancelled):  # it runs: its last word will come
                    began = True
                    patience = max(ANSWER_LIMIT, self.limits.total)
                    job.registered(lambda: executor.cancel_request(number), drain=patience)
                made += len(result.output_token_ids[0])
                job.made = made
                chunk = _chunk(result, texts, cancelled=job.cancelled)
                if chunk.tokens or chunk.finish_reason is not None:
                    yield chunk  # noqa: ASYNC119 - the pump closes this generator, always
        finally:
            del self._inboxes[number]
            if not (began or final):
                job.proved(Proof.CLOSED)

    async def aclose(self) -> None:
        """Cancel everything, and wait until nobody asks for responses any more. Idempotent."""
        await super().aclose()
        if self._reading is not None:
            with anyio.move_on_after(ANSWER_LIMIT):  # what ignores its cancel is read on so long
                await self._reading.wait()

    def _request(self, job: Job) -> Any:
        bindings = importlib.import_module("tensorrt_llm.bindings.executor")
        asked, sampling = job.request, job.request.sampling
        values: dict[str, Any] = {
            "num_return_sequences": asked.n if asked.n > 1 else None,
            "seed": sampling.seed,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            **choosing(sampling, asked.n),
        }
        config = {name: value for name, value in values.items() if value is not None}
        return bindings.Request(
            input_token_ids=list(asked.prompt_ids) or self._tokenizer.encode(asked.prompt),
            max_tokens=job.max_tokens,
            streaming=True,
            sampling_config=bindings.SamplingConfig(**config),
            output_config=bindings.OutputConfig(exclude_input_from_output=True),
            end_id=self._tokenizer.eos_token_id,
        )

    # -- responses, of all requests ------------------------------------------------------------

    def _read_on(self) -> None:
        if self._reading is None:
            self._reading = anyio.Event()
            current_loop().spawn(self._read, f"responses of {self.name}")

    async def _read(self) -> None:
        """Hand out responses for as long as somebody waits for one."""
        ask = self._executor.await_responses
        try:
            while self._inboxes:
                self._hand_out(await anyio.to_thread.run_sync(ask, PATIENCE))
        except Exception as error:  # noqa: BLE001 - without responses it is of no use to anybody
            self.died(error)
        finally:
            ended, self._reading = self._reading, None
            if ended is not None:
                ended.set()

    def _hand_out(self, responses: list[Any]) -> None:
        for response in responses:
            inbox = self._inboxes.get(response.request_id)
            if inbox is not None:  # else it was not waited for any more
                inbox.put(response)


class _Inbox:
    """The responses to one request; its bound is what the request may make."""

    __slots__ = ("_arrived", "_responses")

    def __init__(self) -> None:
        self._responses: deque[Any] = deque()
        self._arrived = anyio.Event()

    def put(self, response: Any) -> None:
        self._responses.append(response)
        self._arrived.set()

    async def next(self) -> Any:
        """Return the next result; raise EngineFailed for an error."""
        while not self._responses:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        response = self._responses.popleft()
        if response.has_error():
            raise EngineFailed(f"TensorRT-LLM failed on a request: {response.error_msg}")
        return response.result


class _GrowingText:
    """The text of token ids that come in pieces, each of which may end within a character."""

    __slots__ = ("_begin", "_end", "_ids", "_tokenizer")

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._begin = self._end = 0  # what was said last: it decides how the next is spelled

    def add(self, ids: list[int], *, last: bool) -> str:
        """Return what these add to the text; kept back where it ends within a character."""
        self._ids += ids
        said: str = self._tokenizer.decode(self._ids[self._begin : self._end])
        text: str = self._tokenizer.decode(self._ids[self._begin :])
        if text.endswith("\ufffd") and not last:
            return ""
        self._begin, self._end = self._end, len(self._ids)
        return text[len(said) :]


def _chunk(result: Any, texts: list[_GrowingText], *, cancelled: bool) -> Chunk:
    index, ids = int(result.sequence_index), list(result.output_token_ids[0])
    reason = str(result.finish_reasons[0]).rpartition(".")[2] if result.is_sequence_final else ""
    if reason and reason not in _FINISHED and not cancelled:
        raise EngineFailed(
            f"TensorRT-LLM ended choice {index} with {reason}: it ran out of its time, or somebody "
            "cancelled it"
        )
    ended = _FINISHED.get(reason)
    return Chunk(texts[index].add(ids, last=bool(reason)), len(ids), index, ended)
