"""The adapters for Hugging Face transformers: ``generate()`` on threads, and its batching."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streamkit.engines._known import KnownEngine

from ._batch_engine import TransformersBatchEngine
from ._engine import CAPABILITIES, TransformersEngine
from ._model import INSTALL
from ._options import OPTIONS, from_options

__all__ = [
    "KNOWN",
    "OPTIONS",
    "TransformersBatchEngine",
    "TransformersEngine",
    "from_options",
]

KNOWN: Final = KnownEngine(
    name="transformers",
    make=from_options,
    options=OPTIONS,
    capabilities=replace(CAPABILITIES, cancel_prefill="layer"),  # on a CPU
    package="transformers",
    install=INSTALL,
    cannot={
        "kill": "a thread can only be asked; a call that neither asks nor returns keeps its slot",
        "prefill on a GPU": "it is handed the work of all layers at once; one batch for all "
        "requests (batching=continuous) is left at the next chunk",
        "seed with batching=continuous": "all requests draw from one generator",
    },
)
