"""The request-aware model runner: a Truss model class, run so that leaving stops it."""

from __future__ import annotations

from ._call import ModelCall
from ._config import ModelConfig
from ._failure import describe_failure
from ._gap import GapLimits
from ._loading import LoadedModel, ModelLoader
from ._module import enter
from ._patience import ASK_GRACE
from ._payload import MAX_DEPTH, is_binary, parse_body, parse_inputs
from ._result import Answer, Result, Stream, Value
from ._results import dump_binary, dump_json
from ._rules import KNOWN, Kind, Method, Methods, Takes, examine
from ._runner import ModelOptions, ModelRunner
from ._target import find_target
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
    "LoadedModel",
    "Method",
    "Methods",
    "ModelCall",
    "ModelConfig",
    "ModelLoader",
    "ModelOptions",
    "ModelRunner",
    "Result",
    "Stream",
    "Takes",
    "Validator",
    "Value",
    "describe_failure",
    "dump_binary",
    "dump_json",
    "enter",
    "examine",
    "find_target",
    "is_binary",
    "parse_body",
    "parse_inputs",
]
