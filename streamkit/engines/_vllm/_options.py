"""vLLM's options for a command line: those that are asked for most, and any other as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streamkit.engines._optional import check_installed
from streamkit.engines._options import JSON, LARGE, TEXT, Option, Real, Switch, json_object

from ._engine import INSTALL, VLLMEngine

OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("model", TEXT, None, "folder or name of the model; it has to be given"),
        Option("tokenizer", TEXT, None, "folder or name of the tokenizer, if not the model's"),
        Option("dtype", TEXT, None, "numbers that it computes with: auto, bfloat16, float32, …"),
        Option("load_format", TEXT, None, "form of its weights; dummy makes random ones"),
        Option("quantization", TEXT, None, "how its weights are quantized"),
        Option("max_model_len", LARGE, None, "tokens of a prompt and its answer, at most"),
        Option("max_num_seqs", LARGE, None, "sequences that run at once"),
        Option("max_num_batched_tokens", LARGE, None, "tokens that one step takes, at most"),
        Option("block_size", LARGE, None, "tokens of one block of the KV cache"),
        Option("gpu_memory_utilization", Real(0.01, 1.0), None, "share of the GPU's memory"),
        Option("tensor_parallel_size", LARGE, None, "GPUs that share each layer"),
        Option("enforce_eager", Switch(), None, "whether nothing is compiled or captured"),
        Option("trust_remote_code", Switch(), None, "whether code that comes with it is run"),
        Option("args", JSON, None, "other AsyncEngineArgs fields"),
    )
}


def from_options(args: str | None = None, **fields: object) -> VLLMEngine:
    """Return the engine that a command line's options mean; it has to be loaded.

    Raises:
        ValueError: No model was named.
        MissingPackage: vLLM is not installed.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given |= json_object(args or "{}")
    if "model" not in given:
        raise ValueError("engine vllm needs to know which model: --engine-option model=…")
    check_installed("vllm", engine="vllm", install=INSTALL)
    return VLLMEngine(given)
