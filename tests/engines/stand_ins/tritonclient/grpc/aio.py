"""The stub of Triton's client."""

from tests.engines.triton_stub import InferenceServerClient

__all__ = ["InferenceServerClient"]
