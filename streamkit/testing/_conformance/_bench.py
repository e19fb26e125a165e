"""The engine under test: made and made anew, measured when idle, filled, and looked into."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Final, TypeAlias

import anyio
from anyio.abc import TaskGroup

from streamkit._core import Cancellation, Reason, now
from streamkit.engines import Engine, EngineStatistics, Generation, GenerationRequest

from ._plan import CheckPlan, Pace, slots_of
from ._reading import PhaseTimes, Reader
from ._report import EngineReport

EngineFactory: TypeAlias = Callable[[], Engine | Awaitable[Engine]]

CANARIES: Final = 3  # whose median says how fast the idle engine is
SOLO_TOKENS: Final = 20
LOOKS: Final = 20  # into the books, for each step of the engine that they are waited for


class EngineGone(Exception):
    """The engine died or hung, more often than the plan allows for."""


class Bench:
    """Holds the engine, and what is known of it.

    Attributes:
        engine: The one that is alive now.
        plan: What the kit was told.
        report: What was found out.
        pace: How fast it is.
    """

    def __init__(self, factory: EngineFactory, plan: CheckPlan, engine: Engine) -> None:
        self.plan = plan
        self.engine = engine
        self.report = EngineReport(engine=engine.name, capabilities=engine.capabilities)
        self.pace = _UNKNOWN
        self._factory = factory
        self._restarts = 0

    # -- its life ------------------------------------------------------------------------------

    async def restart(self) -> None:
        """Close it, and have another one made."""
        if self._restarts == self.plan.restarts:
            raise EngineGone
        self._restarts += 1
        await self.aclose()
        self.engine = await make(self._factory)

    async def aclose(self) -> None:
        """Close it, whatever state it is in."""
        with anyio.move_on_after(self.plan.patience, shield=True):
            try:
                await self.engine.aclose()
            except Exception as error:  # noqa: BLE001 - is reported
                self.report.find("alive", f"aclose() raised {error!r}")

    async def settle(self) -> None:
        """Wait until it is idle; have another one made when it is not, or dead."""
        if self.engine.failure is not None:
            if not self.report.broke("alive"):
                self.report.find("alive", f"it died of {self.engine.failure!r}")
            await self.restart()
            return
        if not await self.wait_idle():
            load = self.statistics()
            assert load is not None
            self.report.find(
                "idle",
                f"{self.plan.patience:.3g} s after all had ended, it still had {load.running} "
                f"running and {load.queued} queued",
            )
            await self.restart()

    async def wait_idle(self) -> bool:
        """Whether its books come to be empty while patience lasts; True where it has none."""
        with anyio.move_on_after(self.plan.patience):
            while (load := self.statistics()) is not None and load.running + load.queued:  # noqa: ASYNC110 - books have no event
                await anyio.sleep(max(self.pace.step, 0.001))
            return True
        return False

    # -- what can be asked of it ---------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many requests fill it."""
        return slots_of(self.engine, self.plan)

    def statistics(self) -> EngineStatistics | None:
        """Its books, where it claims to have some."""
        return self.engine.statistics() if self.engine.capabilities.observes else None

    def has_queue(self) -> bool:
        """Whether its books say that somebody waits."""
        load = self.statistics()
        return load is not None and load.queued > 0

    def tokens(self) -> int | None:
        """Tokens that it made since its start, by its own count."""
        load = self.statistics()
        return None if load is None else load.tokens

    def open(
        self,
        *,
        long: bool = False,
        tokens: int | None = None,
        phases: PhaseTimes | None = None,
        request_id: str | None = None,
    ) -> Generation:
        """Open a generation."""
        plan = self.plan
        request = GenerationRequest(
            prompt=plan.long_prompt if long else plan.prompt,
            max_tokens=tokens or plan.answer_tokens,
        )
        return self.engine.open(request, request_id=request_id, on_phase=phases)

    async def canary(self, *, long: bool = False) -> float | None:
        """Seconds to the first token of a one-token request; None when it does not come."""
        began = now()
        reader = Reader(self.open(long=long, tokens=1))
        with anyio.move_on_after(self.plan.patience):
            await reader.read()
        return None if reader.first_at is None else reader.first_at - began

    @asynccontextmanager
    async def occupied(self, generations: int) -> AsyncGenerator[list[Reader]]:
        """Keep it busy with so many others, which are cancelled at the end of the block."""
        readers = [Reader(self.open()) for _ in range(generations)]
        async with anyio.create_task_group() as tasks:
            try:
                await self._start_all(readers, tasks)
                yield readers
            finally:
                with anyio.move_on_after(self.plan.bound, shield=True):
                    await _end_all(readers)

    async def _start_all(self, readers: list[Reader], tasks: TaskGroup) -> None:
        for reader in readers:
            tasks.start_soon(reader.read)
        with anyio.move_on_after(self.plan.patience):
            for reader in readers:
                await reader.mark(1).wait()

    # -- how fast it is ------------------------------------------------------------------------

    async def measure(self) -> None:
        """Find out its pace; the first answer is a warm-up."""
        await self.canary()
        first = [seconds for _ in range(CANARIES) if (seconds := await self.canary()) is not None]
        solo, again = [await self._solo() for _ in range(2)]
        long = await self.canary(long=True)
        if not first or long is None or solo.first_at is None or solo.ended_at is None:
            raise EngineGone
        self.pace = Pace(
            first_token=median(first),
            step=(solo.ended_at - solo.first_at) / max(1, solo.tokens - 1),
            long_first_token=long,
            tokens_per_step=max(solo.largest, again.largest),
            text=solo.text if solo.text == again.text else None,
        )
        self.report.pace = self.pace

    async def _solo(self) -> Reader:
        reader = Reader(self.open(tokens=SOLO_TOKENS))
        with anyio.move_on_after(self.plan.patience):
            await reader.read()
        return reader


async def _end_all(readers: list[Reader]) -> None:
    for reader in readers:
        leave(reader.generation, "others make room")
    for reader in readers:
        if reader.generation is not None:
            await reader.generation.wait_stopped()


async def make(factory: EngineFactory) -> Engine:
    """Ask a factory, sync or async, for an engine."""
    engine = factory()
    return await engine if inspect.isawaitable(engine) else engine


def cancellation(detail: str) -> Cancellation:
    """What the kit cancels with."""
    return Cancellation(reason=Reason.REQUESTED, at=now(), detail=detail)


def leave(generation: Generation | None, detail: str) -> None:
    """Cancel it, if it is there."""
    if generation is not None:
        generation.cancel(cancellation(detail))


_UNKNOWN: Final = Pace(
    first_token=0.0, step=0.0, long_first_token=0.0, tokens_per_step=1, text=None
)
