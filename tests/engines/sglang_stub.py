"""SGLang 0.5.23 as far as the adapter calls it, with the corners that bite.

An abort by id that comes before its request is ignored; one that comes between the two halves of a
submit is lost, and no later one is sent (``abort_sent``). The scheduler aborts whatever begins with
the id. A waiting request is popped and echoed, one in prefill ends at its next chunk, a running one
makes one more step. ``n`` in the sampling parameters makes ids that nobody is told. An entry of
``rid_to_state`` is struck off when the scheduler has answered. With its first request it takes
SIGTERM over, in the main thread.

Its names are compared with the published source's in test_sglang_names.py.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import anyio

STEP = 0.02
CHUNK = 512
MODULES = ("sglang",)


@dataclass(eq=False)
class ReqState:
    """The front end's record of one request."""

    rid: str
    params: dict[str, Any]
    wanted: int | None  # likeliest tokens
    index: int | None = None
    out_list: list[dict[str, Any]] = field(default_factory=list)
    event: asyncio.Event = field(default_factory=asyncio.Event)
    finished: bool = False
    dispatched: bool = False
    abort_sent: bool = False
    output_ids: list[int] = field(default_factory=list)
    prompt_tokens: int = 0


@dataclass(eq=False)
class Req:
    """The scheduler's record of it."""

    rid: str
    prompt: int
    limit: int
    prefilled: int = 0
    made: int = 0
    to_finish: bool = False


class Scheduler:
    """The other process: takes what it was sent between two steps."""

    def __init__(self, manager: TokenizerManager, slots: int) -> None:
        self.manager = manager
        self.slots = slots
        self.waiting: list[Req] = []
        self.running: list[Req] = []
        self.inbox: list[Req | str] = []
        self.aborts: list[str] = []
        self.deaf = False
        self.steps = 0
        self.tokens = 0
        self._loop: asyncio.Task[None] | None = None

    def send(self, message: Req | str) -> None:
        self.inbox.append(message)
        if self._loop is None:
            self._loop = asyncio.create_task(self._run())  # noqa: TID251 - as its processes do

    async def aclose(self) -> None:
        self.inbox, self.waiting, self.running = [], [], []
        if self._loop is not None:
            await self._loop

    async def _run(self) -> None:
        while self.inbox or self.waiting or self.running:
            self._take_messages()
            while self.waiting and len(self.running) < self.slots:
                self.running.append(self.waiting.pop(0))
            if self.running:
                await anyio.sleep(STEP)
                self._step()
        self._loop = None

    def _take_messages(self) -> None:
        while self.inbox:
            message = self.inbox.pop(0)
            if isinstance(message, Req):
                self.waiting.append(message)
            elif not self.deaf:
                self.aborts.append(message)
                self._abort(message)

    def _abort(self, rid: str) -> None:
        for req in [one for one in self.waiting if one.rid.startswith(rid)]:
            self.waiting.remove(req)
            self.manager.handle_abort(req.rid, "Abort in waiting queue")
        for req in [one for one in self.running if one.rid.startswith(rid)]:
            req.to_finish = True

    def _step(self) -> None:
        self.steps += 1
        for req in list(self.running):
            self._work_on(req)

    def _work_on(self, req: Req) -> None:
        if req.prefilled < req.prompt:
            req.prefilled += CHUNK
            if req.prefilled < req.prompt:
                if req.to_finish:
                    self.running.remove(req)
                    self.manager.handle_abort(req.rid, "Aborted")
                return
        req.made += 1
        self.tokens += 1
        reason: dict[str, Any] | None = None
        if req.to_finish:
            reason = {"type": "abort", "message": "Aborted"}
        elif req.made == req.limit:
            reason = {"type": "length", "length": req.limit}
        if reason is not None:
            self.running.remove(req)
        self.manager.handle_output(req.rid, req.made - 1, reason)


class Tokenizer:
    def __init__(self, words: list[str], template: str | None) -> None:
        self.words = words
        self.chat_template = template

    def decode(self, token_ids: list[int]) -> str:
        return "".join(self.words[token % len(self.words)] for token in token_ids)

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        return_dict: bool,
    ) -> list[int]:
        assert tokenize
        assert not return_dict
        if conversation[0]["role"] == "assistant":
            raise RuntimeError("a conversation begins with its user")
        return [7] * len(conversation)


class TokenizerManager:
    """The front end, in the process of its caller."""

    def __init__(self, args: SimpleNamespace, words: list[str], template: str | None) -> None:
        self.incremental_streaming_output = args.incremental_streaming_output
        self.rid_to_state: dict[str, ReqState] = {}
        self.tokenizer = Tokenizer(words, template)
        self.scheduler = Scheduler(self, args.max_running_requests)
        self.load_snapshot_reader = SimpleNamespace(read_all=self._loads)
        self.event_loop: asyncio.AbstractEventLoop | None = None
        self.gracefully_exit = False
        self.refusal: dict[str, Any] | None = None

    def auto_create_handle_loop(self) -> None:
        if self.event_loop is not None:
            return
        self.event_loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            self.event_loop.add_signal_handler(signal.SIGTERM, self._sigterm)

    def abort_request(self, rid: str = "", abort_all: bool = False) -> None:
        if not rid and not abort_all:
            return
        state = self.rid_to_state.get(rid)
        if state is None or state.abort_sent:
            return
        state.abort_sent = True
        self.scheduler.send(rid)

    async def generate_request(self, states: list[ReqState]) -> AsyncGenerator[dict[str, Any]]:
        self.auto_create_handle_loop()
        self._register(states)
        try:
            await self._submit(states)
            async for output in self._outputs(states):
                yield output
        except BaseException:
            self._release(states)
            raise

    def _register(self, states: list[ReqState]) -> None:
        for state in states:
            if state.rid in self.rid_to_state:
                raise ValueError(f"Duplicate request ID detected: {state.rid}")
            self.rid_to_state[state.rid] = state
            state.event = states[0].event

    async def _submit(self, states: list[ReqState]) -> None:
        for state in states:
            await anyio.lowlevel.checkpoint()  # the tokenizer's thread
            if state.prompt_tokens >= 8192:
                raise ValueError("The input is longer than the model's context length.")
            limit = state.params["max_new_tokens"] or 8192
            self.scheduler.send(Req(state.rid, state.prompt_tokens, limit))
            state.dispatched = True

    def _release(self, states: list[ReqState]) -> None:
        for state in states:
            if self.rid_to_state.get(state.rid) is not state:
                continue
            if state.dispatched:
                self.abort_request(state.rid)
            else:
                del self.rid_to_state[state.rid]

    async def _outputs(self, states: list[ReqState]) -> AsyncGenerator[dict[str, Any]]:
        left = list(states)
        while left:
            await left[0].event.wait()
            left[0].event.clear()
            ready = [state for state in left if state.out_list]
            left = [state for state in left if not state.finished]
            for state in ready:
                outputs, state.out_list = state.out_list, []
                yield self._merged(state, outputs)

    def _merged(self, state: ReqState, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        merged = dict(outputs[-1])
        if self.incremental_streaming_output:
            merged["text"] = "".join(output["text"] for output in outputs)
            for name in ("output_token_logprobs", "output_top_logprobs"):
                if name in merged["meta_info"]:
                    pieces = [output["meta_info"][name] for output in outputs]
                    merged["meta_info"][name] = [one for piece in pieces for one in piece]
        if state.index is not None:
            merged["index"] = state.index
        return merged

    # -- what its scheduler sends ------------------------------------------------------------------

    def handle_output(self, rid: str, token: int, reason: dict[str, Any] | None) -> None:
        state = self.rid_to_state.get(rid)
        if state is None:
            return
        state.output_ids.append(token)
        if self.refusal is not None:
            reason = self.refusal
        text = self.tokenizer.decode(state.output_ids)
        for stop in state.params.get("stop", ()):
            if (at := text.find(stop)) >= 0 and reason is None:
                text, reason = text[:at], {"type": "stop", "matched": stop}
                self.scheduler.running = [one for one in self.scheduler.running if one.rid != rid]
        self._hand_over(state, text, reason, [token])

    def handle_abort(self, rid: str, message: str) -> None:
        state = self.rid_to_state.get(rid)
        if state is None:
            return
        text = self.tokenizer.decode(state.output_ids)
        self._hand_over(state, text, {"type": "abort", "message": message}, [])

    def _hand_over(
        self, state: ReqState, text: str, reason: dict[str, Any] | None, new: list[int]
    ) -> None:
        incremental = self.incremental_streaming_output
        meta: dict[str, Any] = {
            "id": state.rid,
            "finish_reason": reason,
            "completion_tokens": len(state.output_ids),
            "prompt_tokens": state.prompt_tokens,
        }
        if state.wanted is not None:
            told = new if incremental else state.output_ids
            meta["output_token_logprobs"] = [(-0.5, token, None) for token in told]
        if state.wanted:
            meta["output_top_logprobs"] = [
                [(-0.1 - n, token + 1 + n, None) for n in range(state.wanted)] for token in told
            ]
        said = self.tokenizer.decode(new) if incremental else text
        state.out_list.append({"text": said, "output_ids": state.output_ids, "meta_info": meta})
        state.event.set()
        if reason is not None:
            state.finished = True
            del self.rid_to_state[state.rid]

    def _loads(self) -> list[Any]:
        scheduler = self.scheduler
        return [
            SimpleNamespace(
                max_running_requests=scheduler.slots,
                num_running_reqs=len(scheduler.running),
                num_waiting_reqs=len(scheduler.waiting),
            )
        ]

    def _sigterm(self) -> None:
        self.gracefully_exit = True


class Engine:
    """One engine; ``calls`` and the manager's ``scheduler`` are for tests to look into."""

    def __init__(self, **kwargs: Any) -> None:
        words, template = kwargs.pop("words", ["w "]), kwargs.pop("template", None)
        defaults: dict[str, Any] = {
            "model_path": "m",
            "max_running_requests": 1,
            "chunked_prefill_size": CHUNK,
            "context_length": 8192,
            "disable_overlap_schedule": True,
            "incremental_streaming_output": False,
        }
        if unknown := set(kwargs) - set(defaults):
            raise TypeError(f"Unexpected keyword argument {min(unknown)!r}")
        self.server_args = SimpleNamespace(**{**defaults, **kwargs})
        self.tokenizer_manager = TokenizerManager(self.server_args, words, template)
        self.calls: list[dict[str, Any]] = []
        self.shut_down = False

    async def async_generate(  # noqa: PLR0913, PLR0917 - theirs has 34
        self,
        prompt: list[str] | str | None = None,
        sampling_params: list[dict[str, Any]] | dict[str, Any] | None = None,
        input_ids: list[list[int]] | list[int] | None = None,
        return_logprob: bool = False,
        top_logprobs_num: int | None = None,
        stream: bool = False,
        rid: list[str] | str | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        assert stream, "the stub has no other way"
        self.calls.append({"prompt": prompt, "input_ids": input_ids, "params": sampling_params})
        wanted = top_logprobs_num if return_logprob else None
        several = isinstance(rid, list)
        said: Any = prompt or input_ids
        given: Any = (rid, sampling_params, said) if several else ([rid], [sampling_params], [said])
        states = [
            ReqState(one, params, wanted, at if several else None, prompt_tokens=tokens_in(words))
            for at, (one, params, words) in enumerate(zip(*given, strict=True))
        ]
        return self.tokenizer_manager.generate_request(states)

    def shutdown(self) -> None:
        self.shut_down = True

    @property
    def idle(self) -> bool:
        """For tests."""
        scheduler = self.tokenizer_manager.scheduler
        books = (scheduler.running, scheduler.waiting, scheduler.inbox)
        return not (any(books) or self.tokenizer_manager.rid_to_state)


def tokens_in(prompt: str | list[int]) -> int:
    return len(prompt.split() if isinstance(prompt, str) else prompt)


def modules() -> dict[str, Any]:
    """Entries of ``sys.modules`` that make it what ``import sglang`` finds."""
    return dict.fromkeys(MODULES, sys.modules[__name__])
