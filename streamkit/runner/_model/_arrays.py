"""numpy's arrays and scalars as msgpack_numpy writes them; numpy is imported if one comes."""

from __future__ import annotations

import importlib
import re
import sys
from math import prod
from typing import Any, Final, cast

from streamkit.errors import BadPayload

_STRUCTURED: Final = b"V"
_MOST_DIMENSIONS: Final = 64  # numpy's; 32 until numpy 2
_MOST_EMPTY: Final = 1_000_000
_PICKLED: Final = b"O"
# What numpy's own `dtype.str` gives for types whose bytes are their value. Not "O" and "T": their
# bytes are addresses, and numpy follows them wherever the client says.
_PLAIN: Final = re.compile(r"[<>=|]?[?biufcmMSUV]\d{0,9}(\[\d{0,9}[A-Za-z]{1,2}\])?")


def is_array(value: object) -> bool:
    """Tell without importing numpy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def is_scalar(value: object) -> bool:
    """Tell without importing numpy: one of its numbers or booleans."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.bool_, numpy.number))


def write_array(array: Any) -> dict[bytes, object]:
    """Return its form in msgpack.

    Raises:
        TypeError: Its elements are Python objects: those would be pickled.
    """
    dtype = array.dtype
    if dtype.hasobject:
        raise TypeError(f"an array of {dtype} has no binary form: answer with array.tolist()")
    structured = dtype.kind == "V"
    return {
        b"nd": True,
        b"type": dtype.descr if structured else dtype.str,
        b"kind": _STRUCTURED if structured else b"",
        b"shape": array.shape,
        b"data": array.tobytes(),
    }


def write_scalar(scalar: Any) -> dict[bytes, object]:
    """Return its form in msgpack."""
    return {b"nd": False, b"type": scalar.dtype.str, b"data": scalar.tobytes()}


def read_array(found: dict[bytes, Any]) -> object:
    """Return the array, read-only, or the scalar; ``found`` itself if it is neither.

    Raises:
        BadPayload: It is pickled, or numpy is not installed.
        TypeError, ValueError: It makes no sense.
    """
    if found.get(b"kind") == _PICKLED:
        raise BadPayload("Invalid msgpack payload: arrays of Python objects are not unpickled")
    is_whole = found[b"nd"] is True
    if b"type" not in found or (is_whole and b"shape" not in found):
        return found
    numpy = _numpy()
    dtype = _dtype(numpy, found[b"type"])
    shape = tuple(found[b"shape"]) if is_whole else ()
    array = _view(numpy, dtype, shape, found[b"data"])
    return array if is_whole else array[()]


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise BadPayload(
            "Invalid msgpack payload: it holds a numpy array, and this server has no numpy"
        ) from None


def _view(numpy: Any, dtype: Any, shape: tuple[int, ...], data: bytes) -> Any:
    # Before numpy says so: the product of a million integers takes minutes.
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"an array has at most {_MOST_DIMENSIONS} dimensions")
    count = prod(shape)
    if count and not dtype.itemsize:  # numpy makes as many as it is asked for
        raise ValueError("elements of no bytes")
    # Rows of nothing cost nothing here, and a list each once somebody calls `tolist()`.
    if not count and prod(shape[: shape.index(0)]) > _MOST_EMPTY:
        raise ValueError(f"more than {_MOST_EMPTY} empty rows")
    if count * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes are not {count} elements of {dtype.itemsize} bytes")
    array = numpy.ndarray(shape, dtype, data)
    _check_text(numpy, array)
    return array


def _check_text(numpy: Any, array: Any) -> None:
    """Any 32 bits pass for a character, until the text is looked at; then numpy breaks."""
    dtype = array.dtype
    for name in dtype.names or ():
        _check_text(numpy, array[name])
    if dtype.kind != "U" or not array.size:
        return
    characters = numpy.dtype("u4").newbyteorder(dtype.byteorder)
    if numpy.ascontiguousarray(array).ravel().view(characters).max() > sys.maxunicode:
        raise ValueError("text that is none")


def _dtype(numpy: Any, described: object) -> Any:
    if isinstance(described, list):
        fields = cast("list[Any]", described)
        return numpy.dtype([_field(numpy, *field) for field in fields])
    name = _text(described)
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"arrays of {name[:80]!r} are not read")
    return numpy.dtype(name)


def _field(numpy: Any, name: object, described: object, *shape: Any) -> tuple[object, ...]:
    titled = (*map(_text, cast("list[object]", name)),) if isinstance(name, list) else _text(name)
    return (titled, _dtype(numpy, described), *map(tuple, shape))


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
