"""The request-aware model runner: a Truss model class, run so that leaving stops it."""

from __future__ import annotations

from ._call import ModelCall
from ._gap import GapLimits
from ._patience import ASK_GRACE
from ._result import Answer, Result, Stream, Value
from ._rules import KNOWN, Kind, Method, Methods, Takes, examine
from ._runner import ModelOptions, ModelRunner

__all__ = [
    "ASK_GRACE",
    "KNOWN",
    "Answer",
    "GapLimits",
    "Kind",
    "Method",
    "Methods",
    "ModelCall",
    "ModelOptions",
    "ModelRunner",
    "Result",
    "Stream",
    "Takes",
    "Value",
    "examine",
]
