"""From what a model answered to bytes: JSON, or msgpack for who sent msgpack. As Truss does it."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from pydantic import BaseModel

from ._msgpack import pack
from ._old_models import as_plain


def dump_json(value: object) -> bytes:
    """Return ``value`` as JSON: a pydantic model by its own rules, numpy as numbers and lists.

    Anything but ASCII is escaped, NaN is written as ``NaN``; not so in a pydantic model.

    Raises:
        TypeError: A part of it has no JSON form: bytes, sets, times, models inside of others.
        ValueError: It contains itself.
        RecursionError: It is nested too deep.
    """
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode()
    return _ENCODER.encode(value).encode()


def dump_binary(value: object) -> bytes:
    """Return ``value`` as msgpack with Truss's extensions; bytes are the answer as they are.

    Raises:
        TypeError: A part of it has no such form: sets, models inside of others, arrays of objects.
        ValueError: It is nested too deep or contains itself, or a time has a zone.
        OverflowError: An integer is longer than 64 bits.
    """
    if isinstance(value, bytes):
        return value
    return pack(value.model_dump() if isinstance(value, BaseModel) else value)


def _plain(value: Any) -> object:
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return value.tolist()
        if isinstance(value, (numpy.bool_, numpy.integer, numpy.floating)):
            return value.item()
    if (old := as_plain(value)) is not None:
        return old
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_ENCODER: Final = json.JSONEncoder(default=_plain)  # json.dumps() would make one for each answer
