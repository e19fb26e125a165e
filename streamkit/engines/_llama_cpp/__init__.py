"""The adapter for llama-cpp-python: one ``Llama``, pulled token by token on a thread."""

from __future__ import annotations

from typing import Final

from streamkit.engines._known import KnownEngine

from ._engine import CAPABILITIES, INSTALL, LlamaCppEngine
from ._options import OPTIONS, from_options

__all__ = ["KNOWN", "OPTIONS", "LlamaCppEngine", "from_options"]

KNOWN: Final = KnownEngine(
    name="llama_cpp",
    make=from_options,
    options=OPTIONS,
    capabilities=CAPABILITIES,
    package="llama_cpp",
    install=INSTALL,
    cannot={
        "several at once": "a Llama is one context, which computes one request at a time; the "
        "others wait in streamkit's queue",
        "cancel in prefill on a GPU": "llama.cpp asks whether to go on only where it computes on "
        "the CPU; with n_gpu_layers the prompt may run to its end",
        "kill": "a thread cannot be ended by force",
    },
)
