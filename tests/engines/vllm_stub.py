"""vLLM 0.32 as far as the adapter calls it, with the corners that bite.

Nothing happens before the first output is asked for; an abort of an id that is not known yet is
lost; closing a generator that is being read is an error; an abort ends the consumer at once, and
the core at the end of its step; an abort by the caller's id leaves the parent of ``n`` > 1 behind;
a request that is cancelled while it is sent is left behind; a core that was killed answers nothing.

Its members are compared with the real ones in tests/real/vllm/test_contract.py.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

import anyio

MODULES = (
    "vllm",
    "vllm.engine.arg_utils",
    "vllm.sampling_params",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.exceptions",
)
STEP = 0.02
CHUNK = 512


class VLLMClientError(Exception):
    pass


class EngineDeadError(Exception):
    pass


class EngineGenerateError(Exception):
    pass


class RetryableRequestError(Exception):
    status_code = 503


class RequestOutputKind(Enum):
    CUMULATIVE = 0
    DELTA = 1


@dataclass
class SamplingParams:
    n: int = 1
    stop: list[str] = field(default_factory=list)
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    max_tokens: int | None = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise VLLMClientError(f"top_p must be in (0, 1], got {self.top_p}.")


@dataclass
class Logprob:
    logprob: float
    rank: int
    decoded_token: str


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool


@dataclass
class AsyncEngineArgs:
    model: str
    max_num_seqs: int = 2


class Collector:
    """Merges what is not read, as vLLM does for deltas."""

    def __init__(self, internal_id: str, params: SamplingParams) -> None:
        self.internal_id = internal_id
        self.params = params
        self.output: RequestOutput | Exception | None = None
        self.ready = asyncio.Event()

    def put(self, output: RequestOutput | Exception) -> None:
        if isinstance(self.output, RequestOutput) and isinstance(output, RequestOutput):
            self.output.outputs += output.outputs
            self.output.finished |= output.finished
        else:
            self.output = output
        self.ready.set()

    async def get(self) -> RequestOutput:
        while self.output is None:
            await self.ready.wait()
        output, self.output = self.output, None
        self.ready.clear()
        if isinstance(output, Exception):
            raise output
        return output


@dataclass(eq=False)
class State:
    """One choice, in the front end and in the core."""

    id: str
    external_id: str
    index: int
    queue: Collector
    prompt: list[int]
    limit: int
    siblings: set[str]  # those of its request that have not ended
    prefilled: int = 0
    made: int = 0

    def output(self, tokens: list[int], reason: str | None) -> RequestOutput:
        if reason is not None:
            self.siblings.discard(self.id)
        wanted = self.queue.params.logprobs
        likely = [
            {
                7: Logprob(-0.5, 9, "w "),
                **{n: Logprob(-0.1 - n, n + 1, f"t{n}") for n in range(wanted)},
            }
            for _ in tokens
            if wanted is not None
        ]
        choice = CompletionOutput(self.index, "w " * len(tokens), tokens, likely or None, reason)
        return RequestOutput(self.prompt, [choice], not self.siblings)


class Core:
    """The other process: reads what it was sent between two steps."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.states: dict[str, State] = {}
        self.inbox: list[Callable[[], object]] = []
        self.listener: Callable[[list[tuple[State, list[int], str | None]]], None] | None = None
        self.paused = False
        self.dead = False
        self.steps = 0
        self._loop: asyncio.Task[None] | None = None

    def send(self, message: Callable[[], object]) -> None:
        self.inbox.append(message)
        if self._loop is None and not self.dead:
            self._loop = asyncio.create_task(self._run())  # noqa: TID251 - as vLLM does

    async def _run(self) -> None:
        while (self.inbox or self.states) and not self.dead:
            while self.inbox:
                self.inbox.pop(0)()
            busy = bool(self.states)
            if busy:
                await anyio.sleep(STEP)
            self.step()
            if not busy:
                break
        self._loop = None

    def step(self) -> None:
        self.steps += 1
        outputs: list[tuple[State, list[int], str | None]] = []
        for state in [] if self.dead else list(self.states.values())[: self.slots]:
            if state.prefilled < len(state.prompt):
                state.prefilled += CHUNK
                if state.prefilled < len(state.prompt):
                    continue
            state.made += 1
            reason = "length" if state.made == state.limit else None
            outputs.append((state, [7], reason))
            if reason is not None:
                del self.states[state.id]
        if self.listener is not None:
            self.listener(outputs)

    async def aclose(self) -> None:
        self.states.clear()
        if self._loop is not None:
            await self._loop


class OutputProcessor:
    """The front end's books."""

    def __init__(self) -> None:
        self.request_states: dict[str, State] = {}
        self.parent_requests: dict[str, set[str]] = {}
        self.external_req_ids: defaultdict[str, list[str]] = defaultdict(list)

    @property
    def empty(self) -> bool:
        return not (self.request_states or self.parent_requests or self.external_req_ids)

    def forget(self, state: State) -> None:
        del self.request_states[state.id]
        ids = self.external_req_ids[state.external_id]
        ids.remove(state.id)
        if not ids:
            del self.external_req_ids[state.external_id]


class AsyncLLM:
    """One engine; ``core`` and ``output_processor`` are for tests to look into."""

    def __init__(self, slots: int = 1, *, log_stats: bool = True, template: str | None = None):
        self.core = Core(slots)
        self.core.listener = self._stepped
        self.output_processor = OutputProcessor()
        self.logger_manager = SimpleNamespace(stat_loggers=[]) if log_stats else None
        self.model_config = SimpleNamespace(get_diff_sampling_param=lambda: self.generation_config)
        self.vllm_config = SimpleNamespace(
            scheduler_config=SimpleNamespace(max_num_seqs=slots, async_scheduling=False),
            parallel_config=SimpleNamespace(data_parallel_size=1),
        )
        self.generation_config: dict[str, Any] = {}
        self.tokenizer = SimpleNamespace(chat_template=template, apply_chat_template=render)
        self.calls: list[tuple[Any, SamplingParams, str, dict[str, Any]]] = []
        self.refusal: Exception | None = None
        self.dead_error = EngineDeadError("EngineCore encountered an issue.")
        self.shut_down = False
        self._number = 0

    @classmethod
    def from_engine_args(cls, args: AsyncEngineArgs) -> AsyncLLM:
        if args.model == "broken":
            raise RuntimeError("Engine core initialization failed.")
        return cls(args.max_num_seqs)

    # -- what the adapter calls ------------------------------------------------------------------

    @property
    def errored(self) -> bool:
        return self.core.dead

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    async def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        tokenization_kwargs: dict[str, Any] | None = None,
    ) -> AsyncGenerator[RequestOutput]:
        self.calls.append((prompt, sampling_params, request_id, tokenization_kwargs or {}))
        queue: Collector | None = None
        try:
            queue = await self._add_request(prompt, sampling_params, request_id)
            finished = False
            while not finished:
                output = await queue.get()
                finished = output.finished
                yield output
        except (asyncio.CancelledError, GeneratorExit):
            if queue is not None:
                await self.abort(queue.internal_id, internal=True)
            raise
        except (EngineDeadError, VLLMClientError):
            raise
        except Exception as error:
            raise EngineGenerateError from error

    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        books = self.output_processor
        ids = [request_id] if isinstance(request_id, str) else list(request_id)
        if not internal:
            ids = [one for external in ids for one in books.external_req_ids.get(external, [])]
        for parent in [one for one in ids if one in books.parent_requests]:
            ids += books.parent_requests.pop(parent)
        states = [books.request_states[one] for one in ids if one in books.request_states]
        for state in states:
            books.forget(state)
            state.queue.put(state.output([], "abort"))
        if states and not self.core.dead:
            await anyio.lowlevel.checkpoint()
            self.core.send(lambda: [self.core.states.pop(state.id, None) for state in states])

    async def is_paused(self) -> bool:
        if self.core.dead:
            raise self.dead_error
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.core.send(lambda: answer.done() or answer.set_result(self.core.paused))
        return await answer

    def shutdown(self, timeout: float | None = None) -> None:
        self.shut_down = True
        self.core.dead = True

    # -- what happens in it ------------------------------------------------------------------------

    def die(self) -> None:
        self.kill_quietly()
        for state in list(self.output_processor.request_states.values()):
            state.queue.put(self.dead_error)

    def kill_quietly(self) -> None:
        """Nobody who waits for it hears of it."""
        self.core.dead = True
        self.core.states.clear()

    async def _add_request(self, prompt: Any, params: SamplingParams, request_id: str) -> Collector:
        if self.core.dead:
            raise self.dead_error
        await anyio.lowlevel.checkpoint()  # the tokenizer's thread
        tokens = prompt.get("prompt_token_ids") or [1] * len(prompt["prompt"].split())
        if len(tokens) >= 8192:
            raise VLLMClientError("The decoder prompt is longer than the maximum model length.")
        if self.refusal is not None:
            raise self.refusal
        self._number += 1
        queue = Collector(f"{request_id}-{self._number:08x}", params)
        states = self._register(queue, request_id, tokens)
        try:
            await anyio.lowlevel.checkpoint()  # the socket
            for state in states:
                self.core.send(lambda state=state: self.core.states.setdefault(state.id, state))
        except BaseException:
            if params.n > 1:  # for n == 1 vLLM forgets to
                await self.abort(queue.internal_id, internal=True)
            raise
        return queue

    def _register(self, queue: Collector, request_id: str, tokens: list[int]) -> list[State]:
        params, books = queue.params, self.output_processor
        ids = [queue.internal_id]
        if params.n > 1:
            ids = [f"{index}_{queue.internal_id}" for index in range(params.n)]
            books.parent_requests[queue.internal_id] = set(ids)
        limit, siblings = params.max_tokens or 8192, set(ids)
        states = [
            State(one, request_id, index, queue, tokens, limit, siblings)
            for index, one in enumerate(ids)
        ]
        for state in states:
            books.request_states[state.id] = state
            books.external_req_ids[request_id].append(state.id)
        return states

    def _stepped(self, outputs: list[tuple[State, list[int], str | None]]) -> None:
        books = self.output_processor
        heard = [one for one in outputs if one[0].id in books.request_states]
        for state, tokens, reason in heard:
            state.queue.put(state.output(tokens, reason))
            if reason is not None:
                books.forget(state)
                if not state.siblings:
                    books.parent_requests.pop(state.queue.internal_id, None)
        if self.logger_manager is not None:
            running = min(self.core.slots, len(self.core.states))
            scheduler = SimpleNamespace(
                num_running_reqs=running,
                num_waiting_reqs=len(self.core.states) - running,
                num_skipped_waiting_reqs=0,
            )
            iteration = SimpleNamespace(num_generation_tokens=sum(len(one[1]) for one in heard))
            for logger in self.logger_manager.stat_loggers:
                logger.record(scheduler, iteration, mm_cache_stats=None, engine_idx=0)


def render(messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
    if messages[0]["role"] == "assistant":
        raise RuntimeError("a conversation begins with its user")
    return "".join(f"<{one['role']}>{one['content']}" for one in messages)


def modules() -> dict[str, Any]:
    """Entries of ``sys.modules`` that make it what ``import vllm`` finds."""
    return dict.fromkeys(MODULES, sys.modules[__name__])
