"""The adapter for vLLM: its V1 engine, ``AsyncLLM``, by id."""

from __future__ import annotations

from ._engine import VLLMEngine
from ._options import OPTIONS, from_options

__all__ = ["OPTIONS", "VLLMEngine", "from_options"]
