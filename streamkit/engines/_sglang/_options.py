"""SGLang's options for a command line: those that are asked for most, and any other as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from streamkit.engines._optional import check_installed
from streamkit.engines._options import Option, Real, Switch, Whole, Words

from ._engine import INSTALL, SGLangEngine

_TEXT: Final = Words("a text", str)
_LARGE: Final = Whole(1, 1 << 31)
_THEIRS: Final = {"model": "model_path", "tokenizer": "tokenizer_path"}


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
        Option("quantization", _TEXT, None, "how its weights are quantized"),
        Option("context_length", _LARGE, None, "tokens of a prompt and its answer, at most"),
        Option("max_running_requests", _LARGE, None, "sequences that run at once"),
        Option("chunked_prefill_size", _LARGE, None, "prompt tokens that one step takes, at most"),
        Option("mem_fraction_static", Real(0.01, 1.0), None, "share of the GPU's memory"),
        Option("tp_size", _LARGE, None, "GPUs that share each layer"),
        Option("trust_remote_code", Switch(), None, "whether code that comes with it is run"),
        Option("args", Words("a JSON object", _understand), None, "other ServerArgs fields"),
    )
}


def from_options(args: str | None = None, **fields: object) -> SGLangEngine:
    """Return the engine that a command line's options mean; it has to be loaded.

    Raises:
        ValueError: No model was named.
        MissingPackage: SGLang is not installed.
    """
    given = {_THEIRS.get(name, name): value for name, value in fields.items() if value is not None}
    given |= _understand(args or "{}")
    if "model_path" not in given:
        raise ValueError("engine sglang needs to know which model: --engine-option model=…")
    check_installed("sglang", engine="sglang", install=INSTALL)
    return SGLangEngine(given)
