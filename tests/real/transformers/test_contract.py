"""What of transformers is not its documented interface, and the adapters rely on, is there."""

from __future__ import annotations

import inspect
from typing import Any

import transformers
from transformers import ContinuousBatchingConfig, GenerationConfig, StoppingCriteriaList
from transformers.generation.continuous_batching import continuous_api
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING

from streamkit.engines._transformers._sampling import _WARPERS


def test_the_scheduler_drops_the_cancelled_with_each_step_before_it_computes() -> None:
    source = inspect.getsource(continuous_api.ContinuousBatchProcessor.prepare_next_batch)
    assert source.index("_update_tp_group_state()") < source.index("clear_cancelled_requests()")
    assert source.index("clear_cancelled_requests()") < source.index("schedule_batch(")
    for scheduler in SCHEDULER_MAPPING.values():
        for name in ("active_requests", "waiting_requests"):
            assert f"self.{name}" in inspect.getsource(scheduler.reset)


def test_what_was_added_is_taken_before_what_was_cancelled() -> None:
    source = inspect.getsource(continuous_api.ContinuousBatchProcessor._update_tp_group_state)
    assert source.index("input_queue)") < source.index("cancel_queue)")
    assert source.index("add_waiting_request(") < source.index("set_request_cancellation(")


def test_the_manager_has_what_is_asked_of_it() -> None:
    manager = continuous_api.ContinuousBatchingManager
    for name in ("add_request", "cancel_request", "register_result_handler", "warmup", "destroy"):
        assert callable(getattr(manager, name))
    assert {"block", "hard_stop"} <= set(inspect.signature(manager.stop).parameters)
    source = inspect.getsource(manager.__init__)
    for name in ("input_queue", "output_router", "background_thread_status", "logit_processor"):
        assert f"self.{name}" in source
    assert hasattr(continuous_api.BackgroundThreadStatus, "can_accept_new_requests")
    assert {"max_requests_per_batch", "per_request_processors", "use_async_batching"} <= set(
        ContinuousBatchingConfig.__dataclass_fields__
    )


def test_a_handler_of_a_cancelled_request_is_left_behind() -> None:
    """If this is red, transformers has learnt to take it out, and the adapter need not."""
    source = inspect.getsource(continuous_api.ContinuousBatchProcessor.prepare_next_batch)
    assert "result_handlers" not in source
    assert "deliver" not in source


def test_a_seeded_draw_takes_what_generate_would_take() -> None:
    defaults: dict[str, Any] = GenerationConfig._get_default_generation_params()
    for field, name, default, _ in _WARPERS:
        assert hasattr(transformers, name)
        assert defaults.get(field) == default


def test_a_stopping_criterion_may_be_a_function() -> None:
    assert StoppingCriteriaList([lambda *_: None])
