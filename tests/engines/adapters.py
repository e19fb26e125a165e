"""Adapters for stand-in engines, one for each driver, as users would write them."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field, replace

import anyio

from streamkit.engines import (
    AsyncEngine,
    Capabilities,
    Chunk,
    EngineStatistics,
    Job,
    LadderLimits,
    Proof,
    ThreadEngine,
)

from .stand_in import EngineDead, WordEngine

BY_ID = Capabilities(
    cancel_queued=True,
    cancel_prefill="chunk",
    extra_steps=1,
    answers_cancel="never",
    early_cancel_safe=False,
    fence=True,
    observes=True,
    backpressure=False,
    thread_safe_cancel=False,
    kill=False,
    proof=Proof.OBSERVED,
)


class ById(AsyncEngine):
    default_max_tokens = 100

    def __init__(self, engine: WordEngine, capabilities: Capabilities = BY_ID) -> None:
        super().__init__("by-id", capabilities)
        self.engine = engine

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        await self.engine.submit(job.id, job.request.prompt, job.max_tokens or 100)
        job.registered(lambda: self.engine.abort(job.id))
        try:
            async for text, last in self.engine.outputs(job.id):
                yield Chunk(text, finish_reason="length" if last else None)
        except EngineDead as error:
            raise self.died(error) from None

    async def fence(self) -> None:
        await self.engine.round_trip()

    async def is_gone(self, job_id: str) -> bool:
        return not self.engine.holds(job_id)

    def statistics(self) -> EngineStatistics:
        engine = self.engine
        return self.books(
            slots=engine.slots,
            running=engine.running,
            queued=engine.queued,
            steps=engine.steps,
            tokens=engine.tokens,
        )

    async def aclose(self) -> None:
        await super().aclose()
        await self.engine.aclose()


class ByIdAnswering(ById):
    """Aborts first and reads on: the engine ends the iterator of what it aborted."""

    def __init__(self, engine: WordEngine, drain: float = 1.0) -> None:
        super().__init__(engine, replace(BY_ID, answers_cancel="always"))
        self.drain = drain

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        await self.engine.submit(job.id, job.request.prompt, job.max_tokens or 100)
        job.registered(lambda: self.engine.abort(job.id), drain=self.drain)
        async for text, last in self.engine.outputs(job.id):
            yield Chunk(text, finish_reason="length" if last else None)


@dataclass(eq=False)
class Inside:
    """What happened inside of a connection."""

    opened: int = 0
    closed: int = 0
    log: list[str] = field(default_factory=list)


CONNECTION = Capabilities(
    cancel_queued=False,
    cancel_prefill="none",
    extra_steps=0,
    answers_cancel="never",
    early_cancel_safe=True,
    fence=False,
    observes=False,
    backpressure=False,
    thread_safe_cancel=False,
    kill=False,
    proof=Proof.CLOSED,
)


class Connected(AsyncEngine):
    """Each generation is a connection; closing it is all that can be done."""

    def __init__(self, step: float = 0.02) -> None:
        super().__init__("connected", CONNECTION)
        self.step = step
        self.inside = Inside()

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        job.registered()
        self.inside.opened += 1
        try:
            for number in range(limit := job.max_tokens or 100):
                await anyio.sleep(self.step)
                yield Chunk(f"w{number} ", finish_reason="length" if number + 1 == limit else None)
        finally:
            await anyio.sleep(self.step)  # a goodbye that awaits
            self.inside.closed += 1


THREAD = Capabilities(
    cancel_queued=True,
    cancel_prefill="layer",
    extra_steps=1,
    answers_cancel="never",
    early_cancel_safe=True,
    fence=False,
    observes=True,
    backpressure=True,
    thread_safe_cancel=True,
    kill=False,
    proof=Proof.JOINED,
)


class Threaded(ThreadEngine):
    """Computes in a blocking call; a prompt of many words is prefilled in layers."""

    def __init__(
        self, *, slots: int = 1, step: float = 0.002, limits: LadderLimits | None = None
    ) -> None:
        super().__init__("threaded", THREAD, slots=slots, limits=limits)
        self.step = step
        self.work: Callable[[Job], None] | None = None
        self.threads: set[int] = set()

    def compute(self, job: Job) -> Generator[Chunk]:
        self.threads.add(threading.get_ident())
        if self.work is not None:
            self.work(job)
        for _ in range(len(job.request.prompt.split()) // 50):
            if job.cancelled:
                return
            time.sleep(self.step)  # noqa: TID251 - it blocks its thread, as such engines do
        for number in range(limit := job.max_tokens or 100):
            time.sleep(self.step)  # noqa: TID251
            yield Chunk(f"w{number} ", finish_reason="length" if number + 1 == limit else None)
