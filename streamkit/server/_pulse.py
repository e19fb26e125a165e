"""A thread that asks the event loop for a sign of life: one that is blocked cannot tell itself."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from typing import Final

from streamkit.streams._places import place_of

logger = logging.getLogger("streamkit.server")

INTERVAL: Final = 1.0  # seconds between two questions; each costs the loop some microseconds
REPORT_AFTER: Final = 5.0  # seconds; what blocks for less, the middleware tells of afterwards


class Pulse:
    """Reports a loop that does not answer, with the line it is in; ends a process that has to end.

    Nothing helps against code in C that keeps the interpreter to itself: this thread cannot run
    then, either.

    Args:
        loop: The loop, which runs in this thread.
        on_beat: Called in the loop each time it answers.
        on_dead: Called in the thread with where the loop is, when the patience is over.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_beat: Callable[[], object],
        on_dead: Callable[[str], object],
    ) -> None:
        self._loop = loop
        self._loops_thread = threading.get_ident()
        self._patience = math.inf
        self._on_beat = on_beat
        self._on_dead = on_dead
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, name="streamkit-pulse", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def expect_end(self, patience: float) -> None:
        """The process was told to end; the loop may be silent for so many seconds from now on.

        Legal in a signal handler: it takes no lock.
        """
        self._patience = patience

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._stopped.wait(INTERVAL):
            answered = threading.Event()
            try:
                self._loop.call_soon_threadsafe(self._beat, answered)
            except RuntimeError:  # it is closed
                return
            self._await(answered)

    def _beat(self, answered: threading.Event) -> None:
        answered.set()
        self._on_beat()

    def _await(self, answered: threading.Event) -> None:
        silent = silent_at_the_end = 0.0
        while not (answered.wait(INTERVAL) or self._stopped.is_set()):
            silent += INTERVAL
            silent_at_the_end += INTERVAL if self._patience < math.inf else 0.0
            if silent == REPORT_AFTER:
                logger.error(
                    "the event loop has been blocked for %g s, at %s: nobody is served, and no "
                    "client that left is noticed",
                    silent,
                    place_of(self._loops_thread),
                )
            if silent_at_the_end >= self._patience:
                self._on_dead(place_of(self._loops_thread))
                return
