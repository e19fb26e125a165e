"""What generates tokens: the protocol that fits every engine, and the adapters that speak it."""

from __future__ import annotations

from ._async_engine import AsyncEngine
from ._base import (
    Capabilities,
    Chunk,
    Engine,
    EngineStatistics,
    Generation,
    Loads,
    Misbehaviour,
    Outcome,
    PhaseListener,
    Proof,
    StopReport,
    TokenLogprob,
    Usage,
)
from ._factory import build, engine_names, engine_options, known_engine
from ._fake import FakeEngine, RequestRecord, StepLog, StepRecord
from ._job import Abort, Job
from ._known import KnownEngine
from ._ladder import LadderLimits, prove_stopped
from ._llama_cpp import LlamaCppEngine
from ._options import Option
from ._request import GenerationRequest, Message, Sampling
from ._sglang import SGLangEngine
from ._thread_engine import ThreadEngine
from ._transformers import TransformersBatchEngine, TransformersEngine
from ._triton import TritonEngine
from ._trtllm import TensorRTExecutorEngine, TensorRTLLMEngine
from ._upstream import UpstreamEngine
from ._vllm import VLLMEngine

__all__ = [
    "Abort",
    "AsyncEngine",
    "Capabilities",
    "Chunk",
    "Engine",
    "EngineStatistics",
    "FakeEngine",
    "Generation",
    "GenerationRequest",
    "Job",
    "KnownEngine",
    "LadderLimits",
    "LlamaCppEngine",
    "Loads",
    "Message",
    "Misbehaviour",
    "Option",
    "Outcome",
    "PhaseListener",
    "Proof",
    "RequestRecord",
    "SGLangEngine",
    "Sampling",
    "StepLog",
    "StepRecord",
    "StopReport",
    "TensorRTExecutorEngine",
    "TensorRTLLMEngine",
    "ThreadEngine",
    "TokenLogprob",
    "TransformersBatchEngine",
    "TransformersEngine",
    "TritonEngine",
    "UpstreamEngine",
    "Usage",
    "VLLMEngine",
    "build",
    "engine_names",
    "engine_options",
    "known_engine",
    "prove_stopped",
]
