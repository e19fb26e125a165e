"""SGLang's options for a command line: those that are asked for most, and any other as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streamkit.engines._optional import check_installed
from streamkit.engines._options import JSON, LARGE, TEXT, Option, Real, Switch, json_object

from ._engine import INSTALL, SGLangEngine

_THEIRS: Final = {"model": "model_path", "tokenizer": "tokenizer_path"}


OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("model", TEXT, None, "folder or name of the model; it has to be given"),
        Option("tokenizer", TEXT, None, "folder or name of the tokenizer, if not the model's"),
        Option("dtype", TEXT, None, "numbers that it computes with: auto, bfloat16, float16, …"),
        Option("quantization", TEXT, None, "how its weights are quantized"),
        Option("context_length", LARGE, None, "tokens of a prompt and its answer, at most"),
        Option("max_running_requests", LARGE, None, "sequences that run at once"),
        Option("chunked_prefill_size", LARGE, None, "prompt tokens that one step takes, at most"),
        Option("mem_fraction_static", Real(0.01, 1.0), None, "share of the GPU's memory"),
        Option("tp_size", LARGE, None, "GPUs that share each layer"),
        Option("trust_remote_code", Switch(), None, "whether code that comes with it is run"),
        Option("args", JSON, None, "other ServerArgs fields"),
    )
}


def from_options(args: str | None = None, **fields: object) -> SGLangEngine:
    """Return the engine that a command line's options mean; it has to be loaded.

    Raises:
        ValueError: No model was named.
        MissingPackage: SGLang is not installed.
    """
    given = {_THEIRS.get(name, name): value for name, value in fields.items() if value is not None}
    given |= json_object(args or "{}")
    if "model_path" not in given:
        raise ValueError("engine sglang needs to know which model: --engine-option model=…")
    check_installed("sglang", engine="sglang", install=INSTALL)
    return SGLangEngine(given)
