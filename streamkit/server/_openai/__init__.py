"""OpenAI's API over any engine: what clients of it may ask, and the form in which they are told."""

from __future__ import annotations

from ._framing import DONE, describe_model, error_content, list_of, unix_now
from ._routes import openai_routes

__all__ = ["DONE", "describe_model", "error_content", "list_of", "openai_routes", "unix_now"]
