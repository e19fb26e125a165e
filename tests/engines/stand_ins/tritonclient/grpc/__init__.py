"""The stub of Triton's client."""

from tests.engines.triton_stub import InferInput

__all__ = ["InferInput"]
