"""The adapter for vLLM: its V1 engine, ``AsyncLLM``, by id."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streamkit.engines._known import KnownEngine

from ._engine import CAPABILITIES, INSTALL, VLLMEngine
from ._options import OPTIONS, from_options

__all__ = ["KNOWN", "OPTIONS", "VLLMEngine", "from_options"]

KNOWN: Final = KnownEngine(
    name="vllm",
    make=from_options,
    options=OPTIONS,
    capabilities=replace(CAPABILITIES, observes=True),  # unless it keeps no statistics
    package="vllm",
    install=INSTALL,
    cannot={
        "backpressure": "vLLM computes whether anybody reads or not",
        "kill": "its engine core is one process for all requests",
        "tokens after a cancel": "vLLM drops what it computed after an abort before it counts it",
    },
)
