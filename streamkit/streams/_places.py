"""Where a thread is right now: the line it runs, and the user's own line that led there."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

# Our own code around the user's, and what Python puts around a module that is being imported.
OURS: Final = (str(Path(__file__).parent), str(Path(__file__).parents[1] / "runner"))
IMPORTING: Final = "<frozen importlib."
RUN: Final = threading.Thread.run.__code__  # around what a thread was made for


def place_of(thread_id: int | None) -> str:
    """The line that the thread is in, and the user's own line that led there."""
    # Documented, in spite of its name: there is no other way to look into a running thread.
    frames = sys._current_frames()
    places = list(_user_places(frames.get(thread_id or 0)))
    if len(places) > 1:
        return f"{places[0]}, called from {places[-1]}"
    return places[0] if places else "no line of Python"


def _user_places(frame: FrameType | None) -> Iterator[str]:
    """From the innermost line outwards, up to where our own code called the user's."""
    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        code = frame.f_code
        if not code.co_filename.startswith(IMPORTING) and code is not RUN:
            yield f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
        frame = frame.f_back
