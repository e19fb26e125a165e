"""``SGLangEngine``: closes its generator, aborts by id, and waits for SGLang's book to be empty."""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import anyio

from streamkit.engines._async_engine import AsyncEngine
from streamkit.engines._base import Capabilities, Chunk, EngineStatistics, Proof
from streamkit.engines._job import Job
from streamkit.engines._ladder import LadderLimits
from streamkit.engines._lasting_thread import make_in_lasting_thread
from streamkit.engines._optional import check_installed
from streamkit.engines._request import GenerationRequest
from streamkit.errors import BadPayload, RequestRefused

from ._answer import Answer
from ._words import CHOICES_AT_MOST, arguments_of, has_template, ids_of

INSTALL: Final = "pip install sglang"

CAPABILITIES: Final = Capabilities(
    cancel_queued=True,
    cancel_prefill="chunk",
    extra_steps=3,  # the running one, one more, and one that was scheduled ahead
    answers_cancel="never",  # it would, but its generator is closed first
    early_cancel_safe=False,
    fence=False,
    observes=True,
    backpressure=False,
    thread_safe_cancel=False,
    kill=False,
    proof=Proof.OBSERVED,
    takes=frozenset(
        {
            "prompt_ids",
            "stop",
            "temperature",
            "top_p",
            "seed",
            "frequency_penalty",
            "presence_penalty",
            "logprobs",
        }
    ),
)


class SGLangEngine(AsyncEngine):
    """SGLang's ``Engine``. Needs asyncio, and belongs to the event loop that first uses it.

    A cancel closes SGLang's generator, in the task that reads it: what has not gone to the
    scheduler is forgotten, what has is aborted. Then it aborts by id, for versions that do not; in
    this order only, for an abort by id between the two is lost, and no later one is sent. Then it
    waits until ``rid_to_state`` holds the request no more: SGLang strikes it off when its scheduler
    has answered.

    What SGLang computes for a request after its abort it does not tell: ``tokens_made`` is None.

    Args:
        engine: An ``sglang.Engine``, which stays the caller's to shut down; or a mapping of its
            arguments, from which :meth:`load` makes one that :meth:`aclose` ends.
        name: Its name in logs and metrics.
        limits: How long the ladder waits for a proof of stop.
    """

    def __init__(
        self, engine: object, *, name: str = "sglang", limits: LadderLimits | None = None
    ) -> None:
        super().__init__(name, CAPABILITIES, limits)
        self._engine: Any = None
        self._arguments: Mapping[str, Any] | None = None
        self._tokens = 0
        self._let_go: Callable[[], object] = lambda: None  # of the thread that made it
        if isinstance(engine, Mapping):
            self._arguments = cast("Mapping[str, Any]", engine)
        else:
            self._attach(engine)

    async def load(self) -> None:
        """Make the engine, where arguments were given; does nothing the second time.

        SGLang is imported, its processes are started and its model loaded in a thread. What it does
        in the event loop begins here, too, and SIGTERM is left to whom it belongs to.

        Raises:
            MissingPackage: SGLang is not installed.
            Exception: Whatever it says about its arguments, or its start.

        Cancellation:
            Leaves the thread to finish, and what it made to the end of the process.
        """
        if self._engine is None:
            check_installed("sglang", engine=self.name, install=INSTALL)
            make = partial(_make, self._arguments)
            made, self._let_go = await make_in_lasting_thread(make)
            self._attach(made)
        engine: Any = self._engine
        _begin(engine.tokenizer_manager)

    def check_alive(self) -> None:
        """Raise when nothing can be submitted now."""
        if self._engine is None and not self._closed:
            raise RequestRefused(
                f"engine {self.name} is not loaded: await its load()", retry_after=1.0, status=503
            )
        super().check_alive()

    def check(self, request: GenerationRequest) -> None:
        """Raise ValueError when SGLang could never serve such a request."""
        if not (request.prompt or request.prompt_ids):
            raise ValueError("the prompt is empty")
        if request.n > CHOICES_AT_MOST:
            raise ValueError(f"n must be at most {CHOICES_AT_MOST}, got {request.n}")

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        """Yield what SGLang makes of ``job``; closing it aborts."""
        manager = self._engine.tokenizer_manager
        keywords = arguments_of(job, manager.tokenizer)
        answer = Answer(
            job,
            manager.tokenizer.decode,
            incremental=bool(getattr(manager, "incremental_streaming_output", False)),
        )
        # Now, and not with the first output: that comes after the prefill. A cancel closes the
        # generator at whatever await it is, and one that has not begun will submit nothing.
        job.registered(lambda: _abort(manager, ids_of(job.id, job.request.n)))
        generator = await self._engine.async_generate(**keywords)
        async with _clients_mistakes(), aclosing(generator) as outputs:
            async for output in outputs:
                chunk = answer.chunk(output)
                if chunk is not None:
                    self._tokens += chunk.tokens
                    yield chunk  # noqa: ASYNC119 - the pump closes this generator, always

    async def is_gone(self, job_id: str) -> bool:
        """Whether SGLang's book holds no choice of it."""
        if self._engine is None:  # it was shut down
            return True
        book: dict[str, object] = self._engine.tokenizer_manager.rid_to_state
        return not any(rid.startswith(job_id) for rid in book)

    def statistics(self) -> EngineStatistics | None:
        """The scheduler's own numbers, as it last wrote them down; None while it is loading.

        Its steps it does not tell. The tokens are those that came from it.
        """
        if self._engine is None:
            return None
        loads: list[Any] = self._engine.tokenizer_manager.load_snapshot_reader.read_all()
        return self.books(
            slots=sum(load.max_running_requests for load in loads),
            running=sum(load.num_running_reqs for load in loads),
            queued=sum(load.num_waiting_reqs for load in loads),
            steps=0,
            tokens=self._tokens,
        )

    async def aclose(self) -> None:
        """Cancel everything, wait for its end, and shut down what :meth:`load` made. Idempotent."""
        await super().aclose()
        if self._arguments is not None and self._engine is not None:
            engine, self._engine = self._engine, None
            await anyio.to_thread.run_sync(engine.shutdown, abandon_on_cancel=True)
        self._let_go()

    def _attach(self, engine: Any) -> None:
        self._engine = engine
        args = engine.server_args
        takes = set(CAPABILITIES.takes)
        if has_template(engine.tokenizer_manager.tokenizer):
            takes.add("messages")
        unchunked = getattr(args, "chunked_prefill_size", None) == -1
        ahead = 0 if getattr(args, "disable_overlap_schedule", False) else 1
        self._capabilities = replace(
            CAPABILITIES,
            cancel_prefill="none" if unchunked else "chunk",
            extra_steps=2 + ahead,
            takes=frozenset(takes),
        )


@asynccontextmanager
async def _clients_mistakes() -> AsyncGenerator[None]:
    try:
        yield
    except ValueError as error:  # too long, a value out of its range, …
        raise BadPayload(str(error)) from error


def _abort(manager: Any, ids: list[str]) -> None:
    for rid in ids:
        manager.abort_request(rid=rid)


def _begin(manager: Any) -> None:
    """Have it begin what it does in the loop, without its handler of SIGTERM.

    With its first request it would take the signal over, and end the process when it is idle: a
    server that drains would hear of nothing.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if in_main else None
    manager.auto_create_handle_loop()
    if in_main and manager.event_loop.remove_signal_handler(signal.SIGTERM):
        signal.signal(signal.SIGTERM, before)


def _make(arguments: Mapping[str, Any] | None) -> Any:
    return importlib.import_module("sglang").Engine(**(arguments or {}))
