"""The manager of transformers' continuous batching, and the books of its scheduler."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Hear = Callable[[Any], object]


class Batching:
    """A ``ContinuousBatchingManager`` that runs; whatever of it is not public is read here only.

    Belongs to the event loop's thread. The manager's own thread makes one step after another: it
    takes what was added and what was cancelled, drops the cancelled, computes, delivers.

    Args:
        manager: It was started, and has its batch processor.

    Attributes:
        drops: How often the cancelled were dropped; the manager's thread counts.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._scheduler: Any = manager.batch_processor.scheduler
        self._router: Any = manager.output_router
        self._drop = self._scheduler.clear_cancelled_requests
        self._scheduler.clear_cancelled_requests = self._counted_drop
        self.drops = 0

    @property
    def slots(self) -> int:
        """Requests that run at once."""
        return self._scheduler.max_requests_per_batch

    @property
    def running(self) -> int:
        """Requests that are computed."""
        return len(self._scheduler.active_requests)

    @property
    def queued(self) -> int:
        """Requests that wait, also those that the scheduler has not seen yet."""
        return len(self._scheduler.waiting_requests) + self._manager.input_queue.qsize()

    @property
    def steps(self) -> int:
        """Steps that were made."""
        return self._manager.current_batch

    @property
    def steps_ahead(self) -> int:
        """Steps that are given to the device before the one before them has come back."""
        return 1 if self._manager.continuous_batching_config.use_async_batching else 0

    @property
    def heeds(self) -> frozenset[str]:
        """What of its sampling a request may say; the rest is the model's configuration."""
        known = self._manager.logit_processor.supported_keys
        return frozenset(known) & {"temperature", "top_p"}

    def why_dead(self) -> BaseException | None:
        """What the manager's thread died of, or None while it takes requests."""
        status = self._manager.background_thread_status
        said: str | None = status.can_accept_new_requests()
        if said is None and self._manager.is_running():
            return None
        return status.fatal_error or RuntimeError(said or "the generation thread has ended")

    def add(self, request_id: str, hear: Hear, prompt: Sequence[int], **options: Any) -> bool:
        """Submit a request; ``hear`` is called in this loop with its tokens so far, each time.

        Returns:
            Whether it was taken.
        """
        self._manager.register_result_handler(request_id, hear)
        taken = self._manager.add_request(prompt, request_id=request_id, streaming=True, **options)
        return taken is not None

    def cancel(self, request_id: str) -> None:
        """Have it dropped with the next step. Nobody hears of that."""
        self._manager.cancel_request(request_id)

    def forget(self, request_id: str) -> None:
        """Deliver nothing more for it: of a cancelled one the manager would keep the handler."""
        self._router.result_handlers.pop(request_id, None)

    def holds(self, request_id: str) -> bool:
        """Whether the scheduler has it; what is still on its way to the scheduler is not seen."""
        books = self._scheduler
        return request_id in books.active_requests or request_id in books.waiting_requests

    def _counted_drop(self) -> Any:
        dropped = self._drop()
        self.drops += 1
        return dropped

    def stop(self) -> None:
        """End its thread, with the step that it makes; blocks so long."""
        if self._manager.is_running():
            self._manager.stop(block=True, hard_stop=True)
        self._manager.destroy()

    def __repr__(self) -> str:
        return f"<Batching {self.running} running, {self.queued} queued>"


def start_batching(model: Any, settings: Mapping[str, Any]) -> Batching:
    """Start the manager of a model: its KV cache is made, its thread runs. In a thread.

    Args:
        model: A ``PreTrainedModel``. Its attention may be switched to a form that can do this.
        settings: Fields of its ``ContinuousBatchingConfig``.

    Raises:
        Exception: Whatever transformers says.
    """
    transformers = importlib.import_module("transformers")
    config = transformers.ContinuousBatchingConfig(**{"per_request_processors": True, **settings})
    generation = copy.deepcopy(model.generation_config)  # it is written to
    manager = model.init_continuous_batching(generation, config)
    manager.warmup()  # here and not in its thread: what is wrong is raised
    manager.start()
    return Batching(manager)
