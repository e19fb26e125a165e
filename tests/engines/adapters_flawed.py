"""Adapters that get one thing wrong, each what somebody has got wrong before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import anyio

from streamkit._core import Cancellation, current_loop
from streamkit.engines import Chunk, Generation, Job, Sampling, Usage
from streamkit.engines._opening import Opening
from streamkit.engines._pumped import PumpedRun

from .adapters import BY_ID, ById, Connected
from .stand_in import WordEngine


class Hasty(ById):
    """Aborts at once, also what the engine does not know yet."""

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        job.registered(lambda: self.engine.abort(job.id))
        async for chunk in super().stream(job):
            yield chunk


class Literal(ById):
    """Gives the caller's ids to an engine that matches by prefix."""

    def __init__(self) -> None:
        super().__init__(WordEngine(slots=2, flaw="prefix"))

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        await self.engine.submit(job.request_id, job.request.prompt, job.max_tokens or 100)
        job.registered(lambda: self.engine.abort(job.request_id))
        async for text, last in self.engine.outputs(job.request_id):
            yield Chunk(text, finish_reason="length" if last else None)

    async def is_gone(self, job_id: str) -> bool:
        return True


class _CarelessRun(PumpedRun):
    def cancel(self, cancellation: Cancellation) -> bool:
        current_loop()  # as what touches the loop from any thread does
        return super().cancel(cancellation)


class Careless(ById):
    """Its cancel needs the loop's thread."""

    def _make_run(self, opening: Opening) -> PumpedRun:
        return _CarelessRun(opening, self._runs, self)


class Littering(ById):
    """Leaves a task behind for each abort."""

    def __init__(self) -> None:
        super().__init__(WordEngine())
        self.litter = anyio.Event()

    async def is_gone(self, job_id: str) -> bool:
        current_loop().spawn(self.litter.wait, "litter")
        return await super().is_gone(job_id)

    async def aclose(self) -> None:
        self.litter.set()
        await super().aclose()


class Blind(ById):
    """Its books are always empty."""

    def statistics(self):  # type: ignore[no-untyped-def]
        return replace(super().statistics(), running=0, queued=0, tokens=0)


class RunsOn(Connected):
    """A server that does not notice that its client has gone; it has one slot."""

    def __init__(self) -> None:
        super().__init__()
        self.slot = anyio.Lock()
        self.closed = False

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        job.registered()
        tokens: asyncio.Queue[int] = asyncio.Queue()
        limit = job.max_tokens or 100

        async def serve() -> None:
            async with self.slot:
                for number in range(limit):
                    if self.closed:
                        return
                    await anyio.sleep(self.step)
                    tokens.put_nowait(number)

        current_loop().spawn(serve, "the server")
        for _ in range(limit):
            number = await tokens.get()
            yield Chunk("w ", finish_reason="length" if number + 1 == limit else None)

    async def aclose(self) -> None:
        self.closed = True
        await super().aclose()
        await anyio.sleep(2 * self.step)


class Complaining(ById):
    """Its abort works, and raises."""

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        async def abort() -> None:
            await self.engine.abort(job.id)
            raise ConnectionResetError("the engine hung up")

        await self.engine.submit(job.id, job.request.prompt, job.max_tokens or 100)
        job.registered(abort)
        async for text, last in self.engine.outputs(job.id):
            yield Chunk(text, finish_reason="length" if last else None)


class Twisted(ById):
    """Hands out generations of somebody else's making, with one thing wrong."""

    def __init__(self, twist: type[Twist]) -> None:
        super().__init__(WordEngine())
        self.twist = twist

    def open(self, request: Any, **options: Any) -> Any:
        return self.twist(super().open(request, **options))


class Twist:
    """A generation that passes everything on to another."""

    def __init__(self, inner: Generation) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Any:
        return self.inner.__anext__()


class SaysYes(Twist):
    def cancel(self, cancellation: Cancellation) -> bool:
        self.inner.cancel(cancellation)
        return True


class Raises(Twist):
    async def __anext__(self) -> Chunk:
        try:
            return await self.inner.__anext__()
        except StopAsyncIteration:
            if self.inner.cancellation is not None:
                raise ConnectionError("cancelled") from None
            raise


class GivesMore(Twist):
    more = 1

    async def __anext__(self) -> Chunk:
        try:
            return await self.inner.__anext__()
        except StopAsyncIteration:
            if self.inner.cancellation is None or not self.more:
                raise
        self.more -= 1
        await anyio.sleep(0.001)
        return Chunk("one more ")


class EndsLate(Twist):
    async def __anext__(self) -> Chunk:
        try:
            return await self.inner.__anext__()
        except StopAsyncIteration:
            await anyio.sleep(0.5)
            raise


class Miscounts(Twist):
    @property
    def usage(self) -> Usage:
        usage = self.inner.usage
        return replace(usage, handed_over=usage.handed_over + 1)


class ForgetsItsEnd(Twist):
    """A cancel after the end is recorded all the same."""

    late: Cancellation | None = None

    def cancel(self, cancellation: Cancellation) -> bool:
        self.late = cancellation
        return self.inner.cancel(cancellation)

    @property
    def cancellation(self) -> Cancellation | None:
        return self.inner.cancellation or self.late


class SubmitsAnyway(Twist):
    """What is cancelled before it was read is submitted, and then cancelled."""

    def cancel(self, cancellation: Cancellation) -> bool:
        run = self.inner.run  # type: ignore[attr-defined]
        if run._loop is None:
            run._start()
            run.registered()
        return run.cancel(cancellation)


class Promises(ById):
    """Says that it takes what it does not look at."""

    def __init__(self, *takes: str) -> None:
        super().__init__(WordEngine(), replace(BY_ID, takes=frozenset(takes)))


class Moody(Promises):
    """Takes a seed, and says something else each time."""

    def __init__(self) -> None:
        super().__init__("seed")
        self.mood = 0

    async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
        self.mood += 1
        mood = self.mood
        async for chunk in super().stream(job):
            yield replace(chunk, text=f"{mood}{chunk.text}")


class Lenient(ById):
    """Drops what it does not take, in silence."""

    def open(self, request: Any, **options: Any) -> Any:
        return super().open(replace(request, sampling=Sampling()), **options)


class Picky(ById):
    """Refuses messages, which any engine can have as a prompt."""

    def check(self, request: Any) -> None:
        if request.messages:
            raise ValueError("no messages, please")
