"""Triton's options for a command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamkit.engines._options import TEXT, Option, Whole

from ._engine import DEFAULT_MAX_TOKENS, TritonEngine, check_client

OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("url", TEXT, "localhost:8001", "host and port of its gRPC service"),
        Option("model", TEXT, "ensemble", "the model's name there"),
        Option(
            "max_tokens",
            Whole(1, 1 << 20),
            DEFAULT_MAX_TOKENS,
            "tokens of an answer that names no limit",
        ),
    )
}


def from_options(url: str = "localhost:8001", **options: Any) -> TritonEngine:
    """Return the engine that a command line's options mean; it has to be loaded.

    Raises:
        MissingPackage: Triton's client is not installed.
    """
    check_client("triton")
    return TritonEngine(url, **options)
