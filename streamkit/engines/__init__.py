"""What generates tokens: the protocol that fits every engine, and the adapters that speak it."""

from __future__ import annotations

from ._base import (
    Capabilities,
    Chunk,
    Engine,
    EngineStatistics,
    Generation,
    GenerationRequest,
    Outcome,
    PhaseListener,
    Proof,
    StopReport,
    Usage,
)

__all__ = [
    "Capabilities",
    "Chunk",
    "Engine",
    "EngineStatistics",
    "Generation",
    "GenerationRequest",
    "Outcome",
    "PhaseListener",
    "Proof",
    "StopReport",
    "Usage",
]
