"""The adapter for Triton: a model of TensorRT-LLM's backend, over gRPC, by cancelling the call."""

from __future__ import annotations

from typing import Final

from streamkit.engines._known import KnownEngine

from ._engine import CAPABILITIES, INSTALL, TritonEngine
from ._options import OPTIONS, from_options

__all__ = ["KNOWN", "OPTIONS", "TritonEngine", "from_options"]

KNOWN: Final = KnownEngine(
    name="triton",
    make=from_options,
    options=OPTIONS,
    capabilities=CAPABILITIES,
    package="tritonclient",
    install=INSTALL,
    cannot={
        "proof": "a cancelled call ends here, whatever its backend does: only a canary would tell",
        "cancel_queued": "that is the affair of the model and its backend",
        "observes": "its metrics are of all clients",
        "backpressure": "it computes whether anybody reads or not",
        "finish_reason": "it is told by nobody: an answer that is as long as it may be has length",
    },
)
