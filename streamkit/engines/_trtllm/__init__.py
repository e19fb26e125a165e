"""The adapters for TensorRT-LLM: its LLM API by handle, its executor bindings by id."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streamkit.engines._known import KnownEngine

from ._engine import CAPABILITIES, INSTALL, TensorRTLLMEngine
from ._executor import TensorRTExecutorEngine
from ._options import OPTIONS, from_options

__all__ = ["KNOWN", "OPTIONS", "TensorRTExecutorEngine", "TensorRTLLMEngine", "from_options"]

KNOWN: Final = KnownEngine(
    name="trtllm",
    make=from_options,
    options=OPTIONS,
    capabilities=replace(CAPABILITIES, extra_steps=3),  # with its overlap scheduler
    package="tensorrt_llm",
    install=INSTALL,
    cannot={
        "proof in the queue": "a waiting request that is aborted is dropped without a word",
        "fence": "nothing that it answers is in order with an abort, but a request with a slot",
        "observes": "its iteration statistics come late, and not at all once it is idle",
        "backpressure": "it computes whether anybody reads or not",
        "kill": "its executor is one for all requests",
    },
)
