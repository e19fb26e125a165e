"""What ``import sglang`` finds where this folder is in the path: the stub."""

from tests.engines.sglang_stub import Engine

__all__ = ["Engine"]
