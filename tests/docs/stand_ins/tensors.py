"""What a model for Triton has of its own: its inputs as tensors, and a tensor as text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any


async def as_tensors(inputs: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield {"model_name": "ensemble", "inputs": inputs["prompt"]}


def as_text(result: str) -> str:
    return result
