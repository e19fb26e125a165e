"""From a request's body to a model's inputs: JSON or msgpack, and nothing that could hurt later."""

from __future__ import annotations

import json
import math
import sys
from itertools import accumulate
from typing import Final, NoReturn

from streamkit.errors import BadPayload

from ._explain import refuse
from ._msgpack import unpack
from ._validation import Validator

MAX_DEPTH: Final = 200
"""Lists and maps inside each other; pydantic's own parser stops there as well.

Whatever handles such a value by recursion (``json.dumps``, ``copy.deepcopy``) stays within Python's
usual 1000 frames.
"""

_BINARY: Final = "application/octet-stream"
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS: Final = bytes(set(range(256)) - _STEP.keys())


def is_binary(content_type: str | None) -> bool:
    """Tell whether a body of that type is msgpack; everything else is JSON, declared or not."""
    return (content_type or "").partition(";")[0].strip().lower() == _BINARY


def parse_body(body: bytes, content_type: str | None) -> object:
    """Return what the body holds.

    JSON may be in UTF-8, UTF-16 or UTF-32, with a byte order mark or without. msgpack has the
    extensions of Truss: times, ``Decimal``, ``UUID``, ``complex``, numpy's arrays and scalars.

    Raises:
        BadPayload: It is neither, or nested deeper than :data:`MAX_DEPTH`, or it holds a number
            that is none (NaN, infinity) or an integer of more digits than Python reads.
    """
    if is_binary(content_type):
        return unpack(body, MAX_DEPTH)
    try:
        return _parse_json(body)
    except ValueError as error:
        raise BadPayload(f"Invalid JSON payload: {error}") from None


def parse_inputs(body: bytes, content_type: str | None, validator: Validator) -> object:
    """Return what the body holds, as ``validator`` makes it.

    Raises:
        BadPayload: As :func:`parse_body` and the validator do. A stage that asks for a pydantic
            model is told of bad JSON under the heading of its other errors, as on Truss.
    """
    if is_binary(content_type) or not validator.is_model:
        return validator(parse_body(body, content_type))
    try:
        value = _parse_json(body)
    except ValueError as error:
        raise refuse([("__root__", str(error))]) from None
    return validator(value)


def _parse_json(body: bytes) -> object:
    """Raise ValueError with a text for the client."""
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    # Python's parser recurses in C: if a model has raised the recursion limit, a body of brackets
    # would overflow the stack and end the process. Hence the look ahead.
    if _depth(text) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        return _DECODER.decode(text)
    except (json.JSONDecodeError, _NotJson):
        raise
    except ValueError:
        most = sys.get_int_max_str_digits()
        raise ValueError(f"an integer has more than {most} digits") from None
    except RecursionError:
        raise ValueError("nested too deep") from None


def _depth(text: str) -> int:
    """How deep a parser would get into ``text``, or more; cheap where brackets are few."""
    brackets = text.count("[") + text.count("{")
    if brackets <= MAX_DEPTH:
        return brackets
    escaped = text.encode("utf-8", "surrogatepass")
    quoted = escaped.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(quoted.split(b'"')[::2])
    steps = map(_STEP.__getitem__, outside.translate(None, _NO_BRACKETS))
    return max(accumulate(steps), default=0)


class _NotJson(ValueError):
    """Python's parser takes it for JSON, and nobody else does."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(f"{name} is no JSON value")


def _read_float(text: str) -> float:
    # Python makes 1e999 an infinity, which no JSON can say and no model expects.
    value = float(text)
    if -math.inf < value < math.inf:
        return value
    raise _NotJson(f"the number {text[:20]} is too large for a float")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_read_float)
