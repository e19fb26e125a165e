"""Who waits where: tasks down to their innermost await, threads down to the line they run."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

# Folders of code that is the same for every wait: what waits shows in the frame that called it.
_PLUMBING: Final = ("asyncio", "_backends")
DEPTH: Final = 4  # innermost frames shown; the outer ones are mostly the test runner's

# How an awaitable that runs Python code tells its frame and what it awaits in turn.
_LINKS: Final = (
    ("cr_frame", "cr_await"),  # coroutine
    ("gi_frame", "gi_yieldfrom"),  # generator-based coroutine
    ("ag_frame", "ag_await"),  # asynchronous generator
)
# These hide the generator or coroutine which they advance; the garbage collector sees it.
_OPAQUE: Final = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper")
_HIDDEN: Final = ("async_generator", "coroutine")


def await_stack(awaitable: object) -> list[str]:
    """Return "function (file:line)" for a coroutine and all that it awaits, outermost first."""
    frames = list(_frames(awaitable))
    ours = [frame for frame in frames if not _is_plumbing(frame)]
    return [_place(frame) for frame in ours or frames]


def describe_tasks(tasks: set[asyncio.Task[object]]) -> list[str]:
    """One line for each task: its name and the innermost places where it waits."""
    lines: list[str] = []
    for task in sorted(tasks, key=lambda task: task.get_name()):
        places = await_stack(task.get_coro())[-DEPTH:] or ["not started"]
        lines.append(f"{task.get_name()}: {' > '.join(places)}")
    return lines


def describe_threads() -> list[str]:
    """One line for each thread but the calling one: its name and the innermost places it is in."""
    frames = sys._current_frames()
    others = [each for each in threading.enumerate() if each is not threading.current_thread()]
    return [f"{thread.name}: {_thread_stack(frames.get(thread.ident or 0))}" for thread in others]


def _frames(awaitable: object) -> Iterator[FrameType]:
    while (link := _link(awaitable)) is not None:
        frame, awaitable = link
        yield frame


def _link(awaitable: object) -> tuple[FrameType, object] | None:
    if type(awaitable).__name__ in _OPAQUE:
        referents: list[object] = gc.get_referents(awaitable)
        awaitable = next((it for it in referents if type(it).__name__ in _HIDDEN), None)
    for frame_name, next_name in _LINKS:
        frame: FrameType | None = getattr(awaitable, frame_name, None)
        if frame is not None:
            return frame, getattr(awaitable, next_name)
    return None


def _thread_stack(frame: FrameType | None) -> str:
    places: list[str] = []
    while frame is not None and len(places) < DEPTH:
        places.insert(0, _place(frame))
        frame = frame.f_back
    return " > ".join(places) or "not started"


def _is_plumbing(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).parent.name in _PLUMBING


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"
