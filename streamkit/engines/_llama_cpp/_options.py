"""llama-cpp-python's options for a command line: those asked for most, and any other as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from streamkit.engines._optional import check_installed
from streamkit.engines._options import JSON, LARGE, TEXT, Option, Switch, Whole, json_object

from ._engine import INSTALL, LlamaCppEngine

OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("model", TEXT, None, "path of the model, a .gguf file; it has to be given"),
        Option(
            "n_ctx",
            Whole(0, 1 << 31),
            None,
            "tokens of a prompt and its answer, at most; 0 takes the model's own",
        ),
        Option("n_batch", LARGE, None, "tokens of a prompt that are computed together, at most"),
        Option("n_threads", LARGE, None, "threads that compute a token"),
        Option("n_threads_batch", LARGE, None, "threads that compute a prompt"),
        Option("n_gpu_layers", Whole(-1, 1 << 31), None, "layers on the GPU; -1 is all of them"),
        Option("seed", Whole(0, (1 << 32) - 1), None, "decides answers that name no seed"),
        Option("flash_attn", Switch(), None, "whether flash attention is used"),
        Option("use_mmap", Switch(), None, "whether the model's file is mapped into memory"),
        Option("args", JSON, None, "other arguments of Llama()"),
    )
}


def from_options(
    model: str | None = None, args: str | None = None, **fields: object
) -> LlamaCppEngine:
    """Return the engine that a command line's options mean; it has to be loaded.

    Raises:
        ValueError: No model was named, or there is no such file.
        MissingPackage: llama-cpp-python is not installed.
    """
    given: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    if model is not None:
        given["model_path"] = model
    given |= json_object(args or "{}")
    if "model_path" not in given:
        raise ValueError(
            "engine llama_cpp needs to know which model: --engine-option model=PATH.gguf"
        )
    check_installed("llama_cpp", engine="llama_cpp", install=INSTALL)
    if not Path(given["model_path"]).is_file():
        raise ValueError(f"engine llama_cpp: there is no file {given['model_path']!r}")
    return LlamaCppEngine(given)
