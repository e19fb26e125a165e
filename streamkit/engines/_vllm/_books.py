"""What vLLM's scheduler says of itself with each step: a stat logger that keeps the numbers."""

from __future__ import annotations

from typing import Any


class Books:
    """vLLM's own counts; it is called in the event loop, after each step.

    A report comes with the step after the last abort as well, so that a zero does arrive.

    Attributes:
        steps: Reports that came, one for each step of each engine core.
        tokens: Tokens that reached the front end. What is still made for an aborted request is
            dropped before it is counted, in vLLM itself.
    """

    __slots__ = ("_loads", "steps", "tokens")

    def __init__(self) -> None:
        self._loads: dict[int, tuple[int, int]] = {}  # by engine core: running, waiting
        self.steps = 0
        self.tokens = 0

    @property
    def running(self) -> int:
        """Sequences that are computed."""
        return sum(running for running, _ in self._loads.values())

    @property
    def waiting(self) -> int:
        """Sequences in the queue, also those that wait for something else than room."""
        return sum(waiting for _, waiting in self._loads.values())

    # -- what vLLM calls -----------------------------------------------------------------------

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: object = None,
        engine_idx: int = 0,
    ) -> None:
        """A step was made."""
        if scheduler_stats is not None:
            self.steps += 1
            deferred: int = getattr(scheduler_stats, "num_skipped_waiting_reqs", 0)
            waiting = scheduler_stats.num_waiting_reqs + deferred
            self._loads[engine_idx] = (scheduler_stats.num_running_reqs, waiting)
        if iteration_stats is not None:
            self.tokens += iteration_stats.num_generation_tokens

    def log(self) -> None:
        """Nothing is written."""

    def log_engine_initialized(self) -> None:
        """Of no interest."""

    def record_sleep_state(self, *_: object) -> None:
        """Of no interest."""

    def record_admission_rejection(self, _: str) -> None:
        """Who was refused gets an exception, which says so."""

    def __repr__(self) -> str:
        return f"<Books {self.running} running, {self.waiting} waiting, {self.steps} steps>"
