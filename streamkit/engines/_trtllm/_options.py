"""TensorRT-LLM's options for a command line: the most asked for, and any other as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from streamkit.engines._optional import check_installed
from streamkit.engines._options import Option, Switch, Whole, Words

from ._engine import INSTALL, TensorRTLLMEngine

_TEXT: Final = Words("a text", str)
_LARGE: Final = Whole(1, 1 << 31)


def _understand(text: str) -> dict[str, Any]:
    value: object = json.loads(text)
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    raise ValueError(text)


OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("model", _TEXT, None, "folder or name of the model; it has to be given"),
        Option("tokenizer", _TEXT, None, "folder or name of the tokenizer, if not the model's"),
        Option("dtype", _TEXT, None, "numbers that it computes with: auto, bfloat16, float16, …"),
        Option("tensor_parallel_size", _LARGE, None, "GPUs that share each layer"),
        Option("max_batch_size", _LARGE, None, "sequences that run at once"),
        Option("max_seq_len", _LARGE, None, "tokens of a prompt and its answer, at most"),
        Option("max_num_tokens", _LARGE, None, "tokens that one step takes, at most"),
        Option(
            "enable_chunked_prefill",
            Switch(),
            None,
            "whether a long prompt takes several steps, between which a cancel is heard",
        ),
        Option("trust_remote_code", Switch(), None, "whether code that comes with it is run"),
        Option("args", Words("a JSON object", _understand), None, "other arguments of its LLM"),
    )
}


def from_options(args: str | None = None, **fields: object) -> TensorRTLLMEngine:
    """Return the engine that a command line's options mean; it has to be loaded.

    Raises:
        ValueError: No model was named.
        MissingPackage: TensorRT-LLM is not installed.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given |= _understand(args or "{}")
    if "model" not in given:
        raise ValueError("engine trtllm needs to know which model: --engine-option model=…")
    check_installed("tensorrt_llm", engine="trtllm", install=INSTALL)
    return TensorRTLLMEngine(given)
