"""Counts what a piece of code costs: no seconds, so that every machine counts the same."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, Literal

ROOT: Final = Path(__file__).parents[2]
OURS: Final = str(ROOT / "streamkit")
# What plays the server, the clock and the client has no costs of its own.
STAGE: Final = (str(ROOT / "streamkit" / "testing"), str(ROOT / "tests"))

Event = Literal["turns", "tasks", "timers"]
# asyncio is Python, so that one profiler sees all: each callback that a loop runs is a call of
# Handle._run(), each step of a task is such a callback.
_LOOP: Final[dict[CodeType, Event]] = {
    asyncio.Handle._run.__code__: "turns",
    asyncio.BaseEventLoop.create_task.__code__: "tasks",
    asyncio.BaseEventLoop.call_at.__code__: "timers",
}
_STAGE_CODE: Final = asyncio.BaseEventLoop._run_once.__code__  # turns the loop, on behalf of all


@dataclass(slots=True, kw_only=True)
class Counts:
    """What was counted.

    Attributes:
        turns: Callbacks that the event loop ran; each step of a task is one.
        tasks: Tasks that were started.
        timers: Timers that were set.
        calls: Python functions entered or resumed, and C functions called; of any library.
        bytecodes: Instructions of Python bytecode that ran in files of streamkit's.
    """

    turns: float = 0
    tasks: float = 0
    timers: float = 0
    calls: float = 0
    bytecodes: float = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(**{name: value - getattr(other, name) for name, value in self.items()})

    def __truediv__(self, units: int) -> Counts:
        return Counts(**{name: value / units for name, value in self.items()})

    def items(self) -> list[tuple[str, float]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


class Counter:
    """Counts while one of its blocks runs: in the thread that entered it, or in new threads."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._on_stage: dict[CodeType, bool] = {}

    @contextmanager
    def __call__(self) -> Generator[None]:
        was_on = gc.isenabled()
        gc.disable()  # what finalisers do belongs to no one in particular
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)
            sys.setprofile(None)
            if was_on:
                gc.enable()

    @contextmanager
    def in_new_threads(self) -> Generator[None]:
        threading.setprofile(self._profile)
        threading.settrace(self._trace)
        try:
            yield
        finally:
            threading.settrace(None)  # type: ignore[arg-type]
            threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and (name := _LOOP.get(frame.f_code)):
            setattr(self.counts, name, getattr(self.counts, name) + 1)
        if event in {"call", "c_call"} and not self._is_on_stage(frame.f_code):
            self.counts.calls += 1

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(OURS) or self._is_on_stage(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._trace_ours

    def _trace_ours(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self.counts.bytecodes += 1
        return self._trace_ours

    def _is_on_stage(self, code: CodeType) -> bool:
        known = self._on_stage.get(code)
        if known is None:
            known = code is _STAGE_CODE or code.co_filename.startswith(STAGE)
            self._on_stage[code] = known
        return known
