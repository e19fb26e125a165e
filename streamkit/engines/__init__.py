"""What generates tokens: the protocol that fits every engine, and the adapters that speak it."""

from __future__ import annotations

from ._base import (
    Capabilities,
    Chunk,
    Engine,
    EngineStatistics,
    Generation,
    GenerationRequest,
    Misbehaviour,
    Outcome,
    PhaseListener,
    Proof,
    StopReport,
    Usage,
)
from ._factory import build, engine_names, engine_options
from ._fake import FakeEngine, RequestRecord, StepLog, StepRecord
from ._ladder import LadderLimits, prove_stopped
from ._options import Option

__all__ = [
    "Capabilities",
    "Chunk",
    "Engine",
    "EngineStatistics",
    "FakeEngine",
    "Generation",
    "GenerationRequest",
    "LadderLimits",
    "Misbehaviour",
    "Option",
    "Outcome",
    "PhaseListener",
    "Proof",
    "RequestRecord",
    "StepLog",
    "StepRecord",
    "StopReport",
    "Usage",
    "build",
    "engine_names",
    "engine_options",
    "prove_stopped",
]
