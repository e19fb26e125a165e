"""TensorRT-LLM 1.2's LLM API as far as the adapter calls it, with the corners that bite.

There is no generator: a request is one handle, which is yielded again and again with everything in
it, and leaving it aborts nothing. An abort takes effect when the next iteration begins; one that
runs is answered with ``cancelled``, one that waits never again (``queued_cancel="silent"``), or
only when it would have begun (``"on_admission"``, the C++ backend). Of ``n`` > 1 only the choice
that ends last is told how. A stop string that the detokenizer finds ends the whole request.
Requests and aborts share a socket without a lock: an abort from another thread is lost here.

Its names are compared with the published source's in test_trtllm_names.py.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

import anyio

STEP = 0.02
CHUNK = 512
MODULES = ("tensorrt_llm",)


class RequestError(RuntimeError):
    """Ends one request."""


class CppExecutorError(RuntimeError):
    """Ends the engine."""


@dataclass
class SamplingParams:
    end_id: int | None = None
    max_tokens: int | None = 32
    stop: str | list[str] | None = None
    n: int = 1
    best_of: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: int | None = None
    add_special_tokens: bool = True

    def __post_init__(self) -> None:
        self.best_of = self.best_of or self.n
        greedy = self.top_k in {None, 1} and self.top_p in {None, 0.0}
        if self.best_of > 1 and greedy:
            raise ValueError("Greedy decoding in the LLM API does not allow multiple returns.")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    _last_text_len: int = 0
    _last_token_ids_len: int = 0

    @property
    def length(self) -> int:
        return len(self.token_ids)

    @property
    def text_diff(self) -> str:
        return self.text[self._last_text_len :]

    @property
    def token_ids_diff(self) -> list[int]:
        return self.token_ids[self._last_token_ids_len :]


@dataclass
class Response:
    """What the worker sends: of one choice, what is new."""

    index: int
    tokens: list[int]
    reason: str | None = None
    is_final: bool = False
    error: str | Exception | None = None


class Tokenizer:
    """Wraps one, as TensorRT-LLM does; a token is a place in the list of its words."""

    def __init__(self, words: list[str], template: str | None) -> None:
        self.words = words
        self.tokenizer = SimpleNamespace(chat_template=template)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [1] * (add_special_tokens + len(text.split()))

    def decode(self, token_ids: list[int], **_: object) -> str:
        return "".join(self.words[token % len(self.words)] for token in token_ids)

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        if conversation[0]["role"] == "assistant":
            raise RuntimeError("a conversation begins with its user")
        return "".join(f"<{one['role']}>{one['content']}" for one in conversation)


class RequestOutput:
    """The handle of one request, and its iterator, and all that it yields."""

    def __init__(self, llm: LLM, number: int, prompt: list[int], params: SamplingParams) -> None:
        self.request_id = number
        self.prompt_token_ids = prompt
        self.outputs = [CompletionOutput(index) for index in range(params.n)]
        self._llm = llm
        self._params = params
        self._done = False
        self._aborted = False
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._aqueue = None
        else:
            self._aqueue = asyncio.Queue[Response]()

    @property
    def finished(self) -> bool:
        return self._done

    def abort(self) -> None:
        self._llm.abort_request(self.request_id)
        self._aborted = True

    def aborted(self) -> bool:
        return self._aborted

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Self:
        if self._done:
            raise StopAsyncIteration
        assert self._aqueue is not None, "The asyncio event loop was not present."
        self._take(await self._aqueue.get())
        return self

    def _take(self, response: Response) -> None:
        if isinstance(response.error, Exception):
            self._llm.shutdown()
            raise response.error
        if response.error is not None:
            raise RequestError(response.error)
        self._done = response.is_final
        output = self.outputs[response.index]
        output._last_token_ids_len = len(output.token_ids)
        output.token_ids.extend(response.tokens)
        wanted = self._params.logprobs
        if wanted:
            output.logprobs += [self._likely(token, wanted) for token in response.tokens]
        if response.reason == "cancelled" or self._done:
            output.finish_reason = response.reason
        self._detokenize(output)

    def _likely(self, token: int, wanted: int) -> dict[int, Logprob]:
        others = {token + 1 + n: Logprob(-0.1 - n, n + 1) for n in range(wanted)}
        return {token: Logprob(-0.5, 9), **others}

    def _detokenize(self, new: CompletionOutput) -> None:
        for output in self.outputs:
            output._last_text_len = len(output.text)
        new.text += self._llm.tokenizer.decode(new.token_ids_diff)
        for stop in self._params.stop or ():
            if (at := new.text.find(stop)) >= 0:
                new.text = new.text[:at]
                new.finish_reason, new.stop_reason = "stop", stop
                self.abort()
                self._done = True
                return


@dataclass(eq=False)
class Work:
    """One request in the worker."""

    handle: RequestOutput
    params: SamplingParams
    prefilled: int = 0
    cancelled: bool = False
    made: list[int] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)

    @property
    def number(self) -> int:
        return self.handle.request_id

    def answer(self, response: Response) -> None:
        queue = self.handle._aqueue
        if queue is not None:
            queue.put_nowait(response)


class Worker:
    """The other process: takes what it was sent when an iteration begins."""

    def __init__(self, slots: int, queued_cancel: str) -> None:
        self.slots = slots
        self.queued_cancel = queued_cancel
        self.waiting: list[Work] = []
        self.active: list[Work] = []
        self.inbox: list[Work | int] = []
        self.limits: Callable[[int], int] = lambda _: 8192  # by choice, where no limit was asked
        self.deaf = False
        self.iterations = 0
        self.tokens = 0
        self._loop: asyncio.Task[None] | None = None

    def send(self, message: Work | int) -> None:
        self.inbox.append(message)
        if self._loop is None:
            self._loop = asyncio.create_task(self._run())  # noqa: TID251 - as its proxy does

    async def aclose(self) -> None:
        self.inbox, self.waiting, self.active = [], [], []
        if self._loop is not None:
            await self._loop

    async def _run(self) -> None:
        while self.inbox or self.waiting or self.active:
            self._take_messages()
            self._admit()
            if self.active:
                await anyio.sleep(STEP)
                self._step()
        self._loop = None

    def _take_messages(self) -> None:
        while self.inbox:
            message = self.inbox.pop(0)
            if isinstance(message, Work):
                self.waiting.append(message)
            elif not self.deaf:
                self._cancel(message)

    def _cancel(self, number: int) -> None:
        for work in [one for one in self.active if one.number == number]:
            self._end_cancelled(work)
            self.active.remove(work)
        for work in [one for one in self.waiting if one.number == number]:
            if self.queued_cancel == "silent":
                self.waiting.remove(work)
            else:
                work.cancelled = True

    def _end_cancelled(self, work: Work) -> None:
        for index in range(work.params.n):
            last = index == work.params.n - 1
            work.answer(Response(index, [], "cancelled", is_final=last))

    def _admit(self) -> None:
        while self.waiting and len(self.active) < self.slots:
            work = self.waiting.pop(0)
            work.made = [0] * work.params.n
            if work.cancelled:
                self._end_cancelled(work)
            else:
                self.active.append(work)

    def _step(self) -> None:
        self.iterations += 1
        for work in list(self.active):
            if work.prefilled < len(work.handle.prompt_token_ids):
                work.prefilled += CHUNK
                if work.prefilled < len(work.handle.prompt_token_ids):
                    continue
            for index in range(work.params.n):
                self._make(work, index)

    def _make(self, work: Work, index: int) -> None:
        if index in work.ended:
            return
        token = work.made[index]
        work.made[index] += 1
        self.tokens += 1
        asked = work.params.max_tokens
        ends = work.made[index] == (self.limits(index) if asked is None else asked)
        by_itself = not ends and work.made[index] == self.limits(index)
        if ends or by_itself:
            work.ended.add(index)
        final = len(work.ended) == work.params.n
        reason = "length" if ends else "stop" if by_itself else None
        work.answer(Response(index, [token], reason, is_final=final))
        if final:
            self.active.remove(work)


class LLM:
    """One engine; ``worker``, ``handles`` and ``foreign_aborts`` are for tests to look into."""

    def __init__(
        self,
        model: str = "m",
        tokenizer: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        **kwargs: Any,
    ) -> None:
        self.queued_cancel = kwargs.pop("queued_cancel", "silent")
        words, template = kwargs.pop("words", ["w "]), kwargs.pop("template", None)
        if unknown := set(kwargs) - set(vars(_DEFAULTS)):
            raise ValueError(f"LLM got invalid argument: {min(unknown)}")
        self.args = SimpleNamespace(**{**vars(_DEFAULTS), **kwargs})
        self.tokenizer = Tokenizer(words, template)
        self.worker = Worker(self.args.max_batch_size, self.queued_cancel)
        self.handles: dict[int, RequestOutput] = {}  # the proxy's book
        self.calls: list[tuple[Any, SamplingParams]] = []
        self.refusal: Exception | None = None
        self.foreign_aborts = 0
        self.shut_down = False
        self._executor = SimpleNamespace(is_shutdown=lambda: self.shut_down)
        self._thread: int | None = None

    def generate_async(
        self,
        inputs: Any,
        sampling_params: SamplingParams | None = None,
        *,
        streaming: bool = False,
    ) -> RequestOutput:
        if self.shut_down:
            raise RuntimeError("LLM is shutting down")
        if self.refusal is not None:
            raise self.refusal
        params = sampling_params or SamplingParams()
        self.calls.append((inputs, params))
        assert streaming, "the stub has no other way"
        said = {"prompt": inputs} if isinstance(inputs, str) else inputs
        prompt = said.get("prompt_token_ids") or self.tokenizer.encode(
            said["prompt"], add_special_tokens=params.add_special_tokens
        )
        if len(prompt) > self.args.max_num_tokens:
            raise ValueError("The sum of prompt length should not exceed max_num_tokens")
        self._thread = threading.get_ident()
        handle = RequestOutput(self, len(self.calls) + 1, prompt, params)
        self.handles[handle.request_id] = handle
        self.worker.send(Work(handle, params))
        return handle

    def abort_request(self, number: int) -> None:
        """Of its executor; here the one object is both."""
        if self.shut_down:
            raise AttributeError("'NoneType' object has no attribute 'abort_request'")
        if threading.get_ident() != self._thread:
            self.foreign_aborts += 1
            return
        self.worker.send(number)

    def shutdown(self) -> None:
        self.shut_down = True
        self.worker.inbox, self.worker.waiting, self.worker.active = [], [], []

    # -- for tests -------------------------------------------------------------------------------

    def die(self) -> None:
        """Its worker breaks down, and whoever reads next is told."""
        for work in self.worker.active[:1]:
            work.answer(Response(0, [], error=CppExecutorError("CUDA error")))
        self.worker.waiting, self.worker.active = [], []

    @property
    def idle(self) -> bool:
        worker = self.worker
        return not (worker.active or worker.waiting or worker.inbox)


_DEFAULTS = SimpleNamespace(
    backend="pytorch",
    max_batch_size=1,
    max_num_tokens=8192,
    max_seq_len=None,
    enable_chunked_prefill=True,
    disable_overlap_scheduler=True,
)


def modules() -> dict[str, Any]:
    """Entries of ``sys.modules`` that make it what ``import tensorrt_llm`` finds."""
    return dict.fromkeys(MODULES, sys.modules[__name__])
