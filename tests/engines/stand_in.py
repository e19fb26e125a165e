"""A small asyncio engine as others write them: requests by id, aborts between two steps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import anyio


class EngineDead(Exception):
    pass


@dataclass(eq=False)
class Entry:
    id: str
    limit: int
    prompt_left: int
    made: int = 0
    steps: int = 0
    known: asyncio.Event = field(default_factory=asyncio.Event)
    outputs: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)


class WordEngine:
    """Slots, a queue, prefill in chunks. An abort of an id that it does not know is lost.

    Closing ``outputs()`` stops nothing. ``flaw``: ``"prefix"`` matches ids by prefix, ``"leaks"``
    keeps a record of what was aborted, ``"deaf"`` reads aborts and does nothing,
    ``"patient"`` keeps those of waiting requests until they run, ``"busy"`` those in prefill,
    ``"ghost"`` strikes an aborted one off its books and computes it for a while.
    """

    def __init__(
        self, slots: int = 1, step: float = 0.02, flaw: str | None = None, *, handover: int = 3
    ) -> None:
        self.handover = handover  # loop turns from submit() to the request being known
        self.slots = slots
        self.step = step
        self.flaw = flaw
        self.entries: dict[str, Entry] = {}
        self.records: list[str] = []
        self.aborts: list[str] = []
        self.steps = 0
        self.tokens = 0
        self.dead: EngineDead | None = None
        self._ghost_steps = 0
        self._told: list[str] = []
        self._fences: list[asyncio.Event] = []
        self._loop: asyncio.Task[None] | None = None

    # -- what a caller has -----------------------------------------------------------------------

    async def submit(self, request_id: str, prompt: str, max_tokens: int) -> None:
        if self.dead is not None:
            raise self.dead
        # On its way from here on: cancelling the call takes nothing back.
        entry = Entry(request_id, max_tokens, len(prompt.split()))
        self._arrive(entry, self.handover)
        await entry.known.wait()

    async def outputs(self, request_id: str) -> AsyncGenerator[tuple[str, bool]]:
        entry = self.entries[request_id]
        while True:
            output = await entry.outputs.get()
            if output is None:
                return
            if isinstance(output, Exception):
                raise output
            yield output
            if output[1]:
                return

    async def abort(self, request_id: str) -> None:
        self.aborts.append(request_id)
        if request_id in self.entries or self.flaw == "prefix":
            self._told.append(request_id)
        await anyio.lowlevel.checkpoint()

    async def round_trip(self) -> None:
        if self._loop is None:
            return
        passed = asyncio.Event()
        self._fences.append(passed)
        await passed.wait()

    def holds(self, request_id: str) -> bool:
        return request_id in self.entries

    @property
    def running(self) -> int:
        return min(self.slots, len(self.entries))

    @property
    def queued(self) -> int:
        return len(self.entries) - self.running

    def die(self) -> None:
        self.dead = EngineDead("the engine's process ended")
        for entry in list(self.entries.values())[:1]:  # who asks hears of it, others wait
            entry.outputs.put_nowait(self.dead)
        self.entries.clear()

    async def aclose(self) -> None:
        self.entries.clear()
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop

    # -- what it does ------------------------------------------------------------------------------

    def _arrive(self, entry: Entry, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._arrive, entry, turns - 1)
            return
        self.entries[entry.id] = entry
        entry.known.set()
        if self._loop is None:
            self._loop = asyncio.create_task(self._run())  # noqa: TID251 - as engines do

    async def _run(self) -> None:
        while self.entries or self._ghost_steps:
            await anyio.sleep(self.step)
            self._haunt()
            for entry in list(self.entries.values())[: self.slots]:
                self._work_on(entry)
            self.steps += 1
            self._read_aborts()
            while self._fences:
                self._fences.pop().set()
        self._loop = None

    def _read_aborts(self) -> None:
        told, self._told = self._told, []
        for request_id in told:
            for entry in list(self.entries.values()):
                if not self._means(request_id, entry.id):
                    continue
                if self._keeps(entry):
                    self._told.append(request_id)
                elif self.flaw != "deaf":
                    self._drop(entry)

    def _means(self, told: str, other: str) -> bool:
        return other == told or (self.flaw == "prefix" and other.startswith(told))

    def _keeps(self, entry: Entry) -> bool:
        """Whether it looks at the abort of it later."""
        waits = entry not in list(self.entries.values())[: self.slots]
        if self.flaw == "patient":
            return waits
        return self.flaw == "busy" and not waits and entry.prompt_left > 0

    def _haunt(self) -> None:
        if self._ghost_steps:
            self._ghost_steps -= 1
            self.tokens += 1

    def _drop(self, entry: Entry) -> None:
        self._ghost_steps = 20 if self.flaw == "ghost" else 0
        del self.entries[entry.id]
        entry.outputs.put_nowait(None)
        if self.flaw == "leaks":
            self.records.append(entry.id)

    def _work_on(self, entry: Entry) -> None:
        if entry.prompt_left > 0:
            entry.prompt_left -= 512
            if entry.prompt_left > 0:
                return
        entry.made += 1
        self.tokens += 1
        last = entry.made == entry.limit
        entry.outputs.put_nowait((f"w{entry.made} ", last))
        if last:
            del self.entries[entry.id]
