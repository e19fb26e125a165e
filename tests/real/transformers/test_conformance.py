"""The whole conformance kit on real transformers: on threads, and in continuous batching."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from streamkit.engines import Engine, TransformersBatchEngine, TransformersEngine
from streamkit.testing import CheckPlan, EngineReport, check_engine
from tests.engine_reports import keep

from .conftest import ONE_SLOT

# Bounds for a machine that does other things as well; to ignore a cancel takes longer than any.
check_plan = partial(
    CheckPlan,
    prompt="one two",
    long_prompt="word " * 800,  # a token is a letter
    answer_tokens=2000,
    bound=5.0,
    wake_bound=3.0,
    canary_factor=6.0,
    canary_slack=1.0,
    block_limit=3.0,
    cancels=100,
)


def hooks(engine: Any) -> dict[str, int]:
    layers = engine._hooks.layers
    return {"hooks": sum(len(layer._forward_pre_hooks) for layer in layers)}


def registries(engine: Any) -> dict[str, int]:
    manager = engine._batching._manager
    return {
        "handlers": len(manager.output_router.result_handlers),
        "active": len(manager.batch_processor.scheduler.active_requests),
        "waiting": len(manager.batch_processor.scheduler.waiting_requests),
        "results": manager.output_router.output_queue.qsize(),
        "held": len(engine._held),
    }


def die(engine: Any) -> None:
    """The next step raises, as one does that finds no memory."""

    def step(_: object) -> None:
        raise RuntimeError("out of memory")

    engine._batching._manager.batch_processor._generation_step = step


async def check(
    make: Callable[[], Engine | Awaitable[Engine]], plan: CheckPlan, capsys: Any
) -> EngineReport:
    report = await check_engine(make, plan)
    with capsys.disabled():
        print(f"\n{report}")
    report.raise_if_failed()
    return report


async def test_generate_on_a_thread_keeps_every_promise_about_cancels(
    model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = check_plan(registries=hooks)

    report = await check(lambda: TransformersEngine(model, tokenizer), plan, capsys)
    await keep(report, "transformers", "transformers", "torch")

    assert {"cancel_queued", "cancel_prefill", "observes", "backpressure"} <= set(report.verified)


async def test_continuous_batching_keeps_every_promise_about_cancels(
    model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async def make() -> TransformersBatchEngine:
        engine = TransformersBatchEngine(model, tokenizer, settings=ONE_SLOT)
        await engine.load()
        return engine

    plan = check_plan(registries=registries, die=die)

    report = await check(make, plan, capsys)

    assert {"cancel_queued", "cancel_prefill", "fence", "observes", "death"} <= set(report.verified)
