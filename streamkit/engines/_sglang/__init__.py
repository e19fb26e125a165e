"""The adapter for SGLang: its engine, by id."""

from __future__ import annotations

from typing import Final

from streamkit.engines._known import KnownEngine

from ._engine import CAPABILITIES, INSTALL, SGLangEngine
from ._options import OPTIONS, from_options

__all__ = ["KNOWN", "OPTIONS", "SGLangEngine", "from_options"]

KNOWN: Final = KnownEngine(
    name="sglang",
    make=from_options,
    options=OPTIONS,
    capabilities=CAPABILITIES,
    package="sglang",
    install=INSTALL,
    cannot={
        "answers_cancel": "it would, but its generator is closed first",
        "backpressure": "SGLang computes whether anybody reads or not",
        "kill": "its scheduler is one process for all requests",
        "death": "SGLang ends the whole process when one of its own dies",
    },
)
