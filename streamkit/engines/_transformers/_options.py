"""Options for a command line: those that are asked for most, and all others as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streamkit.engines._optional import check_installed
from streamkit.engines._options import (
    JSON,
    LARGE,
    TEXT,
    Option,
    Switch,
    Whole,
    Words,
    json_object,
)

from ._batch_engine import TransformersBatchEngine
from ._engine import TransformersEngine
from ._model import DEFAULT_TOKENS, INSTALL

THREAD, CONTINUOUS = "thread", "continuous"


OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("model", TEXT, None, "folder or name of the model; it has to be given"),
        Option("tokenizer", TEXT, None, "folder or name of the tokenizer, if not the model's"),
        Option("dtype", TEXT, "auto", "numbers that it computes with: auto, bfloat16, float32, …"),
        Option("device", TEXT, None, "cuda, cuda:1, cpu, …; off: the GPU if there is one"),
        Option("attn_implementation", TEXT, None, "sdpa, eager, flash_attention_2, …"),
        Option("trust_remote_code", Switch(), None, "whether code that comes with it is run"),
        Option("args", JSON, None, "other arguments of from_pretrained()"),
        Option(
            "batching",
            Words(f"{THREAD} or {CONTINUOUS}", [THREAD, CONTINUOUS].index),
            THREAD,
            "a call of generate() for each slot, or one batch that requests join and leave",
        ),
        Option(
            "slots",
            Whole(1, 100_000),
            None,
            "requests that run at once; off: 1 with threads, else many",
        ),
        Option("max_tokens", LARGE, DEFAULT_TOKENS, "tokens of an answer that names no limit"),
        Option("batch_args", JSON, None, "ContinuousBatchingConfig's fields, for continuous"),
    )
}


def from_options(
    args: str | None = None,
    batching: str = THREAD,
    slots: int | None = None,
    max_tokens: int = DEFAULT_TOKENS,
    batch_args: str | None = None,
    **fields: object,
) -> TransformersEngine | TransformersBatchEngine:
    """Return the engine that a command line's options mean; it has to be loaded.

    Raises:
        ValueError: No model was named, or an option is for the other kind of batching.
        MissingPackage: transformers or torch is not installed.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given |= json_object(args or "{}")
    if "model" not in given:
        raise ValueError("engine transformers needs to know which model: --engine-option model=…")
    if batch_args is not None and batching != CONTINUOUS:
        raise ValueError(
            f"engine transformers: batch_args are for --engine-option batching={CONTINUOUS}"
        )
    for package in ("transformers", "torch"):
        check_installed(package, engine="transformers", install=INSTALL)
    if batching == THREAD:
        return TransformersEngine(given, slots=slots or 1, max_tokens=max_tokens)
    settings = {} if slots is None else {"max_requests_per_batch": slots}
    settings |= json_object(batch_args or "{}")
    return TransformersBatchEngine(given, max_tokens=max_tokens, settings=settings)
