"""The request-aware model runner: a Truss model class, run so that leaving stops it."""

from __future__ import annotations

from ._call import ModelCall
from ._gap import GapLimits
from ._patience import ASK_GRACE
from ._payload import MAX_DEPTH, is_binary, parse_body, parse_inputs
from ._result import Answer, Result, Stream, Value
from ._results import dump_binary, dump_json
from ._rules import KNOWN, Kind, Method, Methods, Takes, examine
from ._runner import ModelOptions, ModelRunner
from ._validation import REFS, JsonSchema, Validator

__all__ = [
    "ASK_GRACE",
    "KNOWN",
    "MAX_DEPTH",
    "REFS",
    "Answer",
    "GapLimits",
    "JsonSchema",
    "Kind",
    "Method",
    "Methods",
    "ModelCall",
    "ModelOptions",
    "ModelRunner",
    "Result",
    "Stream",
    "Takes",
    "Validator",
    "Value",
    "dump_binary",
    "dump_json",
    "examine",
    "is_binary",
    "parse_body",
    "parse_inputs",
]
