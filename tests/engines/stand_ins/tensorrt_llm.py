"""What ``import tensorrt_llm`` finds where this folder is in the path: the stub."""

from tests.engines.trtllm_stub import LLM, SamplingParams

__all__ = ["LLM", "SamplingParams"]
