"""TensorRT-LLM's options for a command line: the most asked for, and any other as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streamkit.engines._optional import check_installed
from streamkit.engines._options import JSON, LARGE, TEXT, Option, Switch, json_object

from ._engine import INSTALL, TensorRTLLMEngine

OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("model", TEXT, None, "folder or name of the model; it has to be given"),
        Option("tokenizer", TEXT, None, "folder or name of the tokenizer, if not the model's"),
        Option("dtype", TEXT, None, "numbers that it computes with: auto, bfloat16, float16, …"),
        Option("tensor_parallel_size", LARGE, None, "GPUs that share each layer"),
        Option("max_batch_size", LARGE, None, "sequences that run at once"),
        Option("max_seq_len", LARGE, None, "tokens of a prompt and its answer, at most"),
        Option("max_num_tokens", LARGE, None, "tokens that one step takes, at most"),
        Option(
            "enable_chunked_prefill",
            Switch(),
            None,
            "whether a long prompt takes several steps, between which a cancel is heard",
        ),
        Option("trust_remote_code", Switch(), None, "whether code that comes with it is run"),
        Option("args", JSON, None, "other arguments of its LLM"),
    )
}


def from_options(args: str | None = None, **fields: object) -> TensorRTLLMEngine:
    """Return the engine that a command line's options mean; it has to be loaded.

    Raises:
        ValueError: No model was named.
        MissingPackage: TensorRT-LLM is not installed.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given |= json_object(args or "{}")
    if "model" not in given:
        raise ValueError("engine trtllm needs to know which model: --engine-option model=…")
    check_installed("tensorrt_llm", engine="trtllm", install=INSTALL)
    return TensorRTLLMEngine(given)
