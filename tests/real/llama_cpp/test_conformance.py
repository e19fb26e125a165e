"""The whole conformance kit on the real llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamkit.engines import LadderLimits, LlamaCppEngine
from streamkit.testing import CheckPlan, check_engine
from tests.engine_reports import keep

from .conftest import ARGS

# Bounds for a machine that does other things as well; to ignore a cancel takes longer than any.
PLAN = CheckPlan(
    prompt="one two",
    long_prompt="word " * 800,
    answer_tokens=10_000,
    bound=5.0,
    wake_bound=2.0,
    canary_slack=2.0,
    block_limit=2.0,
)
LIMITS = LadderLimits(stop_bound=PLAN.bound)


async def test_every_promise_about_cancels_is_kept(slow_model: Path, capsys: Any) -> None:
    async def make() -> LlamaCppEngine:
        engine = LlamaCppEngine({"model_path": str(slow_model), **ARGS}, limits=LIMITS)
        await engine.load()
        return engine

    report = await check_engine(make, PLAN)

    with capsys.disabled():
        print(f"\n{report}")
    report.raise_if_failed()
    await keep(report, "llama_cpp", "llama-cpp-python")
    seen = {"cancel_queued", "cancel_prefill", "extra_steps", "proof", "observes", "backpressure"}
    assert seen <= set(report.verified)
