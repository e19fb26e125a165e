"""msgpack with the extensions of Truss: one table of what is written how, and read back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias
from uuid import UUID

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from streamkit.errors import BadPayload

from ._arrays import is_array, is_scalar, read_array, write_array, write_scalar

Extension: TypeAlias = dict[bytes, Any]

_library: Final[Any] = msgpack  # it has no types

_DATA: Final = b"data"
_ARRAY: Final = b"nd"
_MAP: Final[type] = dict
_CONTAINERS: Final[frozenset[type]] = frozenset({list, dict})
_MALFORMED: Final = (MemoryError, OverflowError, RecursionError, TypeError, ValueError)
_UNREADABLE: Final = (_library.UnpackException, MemoryError, RecursionError, ValueError)
_TEXTLESS: Final = {
    "FormatError": "a byte that no value begins with",
    "StackError": "nested too deep",
    "MemoryError": "more elements than there is memory for",
}


def pack(value: object) -> bytes:
    """Return ``value`` as msgpack.

    Raises:
        TypeError: A part of it has no such form.
        ValueError: It is nested too deep, or a time has a zone.
        OverflowError: An integer is longer than 64 bits.
    """
    packed: bytes = _library.packb(value, default=_write)
    return packed


def unpack(data: bytes, max_depth: int) -> object:
    """Return what ``data`` holds, one value and nothing after it. Nothing is ever unpickled.

    Raises:
        BadPayload: It is not that, or nested deeper than ``max_depth``.
    """
    try:
        value: object = _library.unpackb(data, object_hook=_read, ext_hook=_refuse)
    except _UNREADABLE as error:
        name = type(error).__name__
        why = str(error) or _TEXTLESS.get(name, name)
        raise _bad(why) from None
    if _is_deeper(value, max_depth):
        raise _bad(f"nested deeper than {max_depth} levels")
    return value


def _bad(why: str) -> BadPayload:
    return BadPayload(f"Invalid msgpack payload: {why}")


def _is_deeper(value: object, limit: int) -> bool:
    level: list[Any] = [[value]]
    for _ in range(limit + 1):
        # In one comprehension: a call for each of millions of small lists takes longer than they
        # took to be read.
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is _MAP else outer)
            if type(inner) in _CONTAINERS
        ]
        if not level:
            return False
    return True


# -- one form per type -----------------------------------------------------------------------------


def _write_datetime(value: datetime) -> str:
    text = value.isoformat()
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def _write_time(value: time) -> str:
    if value.utcoffset() is not None:
        raise ValueError("a time with a zone has no binary form: send a datetime")
    return value.isoformat()


def _write_timedelta(value: timedelta) -> tuple[int, int, int]:
    return value.days, value.seconds, value.microseconds


def _read_timedelta(data: Any) -> timedelta:
    days, seconds, microseconds = data
    return timedelta(days=days, seconds=seconds, microseconds=microseconds)


def _from_text(parse: Callable[[str], object]) -> Callable[[object], object]:
    def read(data: object) -> object:
        text = data.decode() if isinstance(data, bytes) else data
        if not isinstance(text, str):
            raise TypeError(f"expected text, got {type(text).__name__}")
        return parse(text)

    return read


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]!r} is no decimal number") from None


class _Form(NamedTuple):
    kind: type
    key: bytes
    write: Callable[[Any], object]
    read: Callable[[Any], object]


# In order: a datetime is a date as well.
_FORMS: Final[tuple[_Form, ...]] = (
    _Form(datetime, b"__dt_datetime_iso__", _write_datetime, _from_text(datetime.fromisoformat)),
    _Form(date, b"__dt_date_iso__", date.isoformat, _from_text(date.fromisoformat)),
    _Form(time, b"__dt_time_iso__", _write_time, _from_text(time.fromisoformat)),
    _Form(timedelta, b"__dt_timedelta__", _write_timedelta, _read_timedelta),
    _Form(Decimal, b"__decimal__", str, _from_text(_decimal)),
    _Form(UUID, b"__uuid__", str, _from_text(UUID)),
    _Form(complex, b"complex", repr, _from_text(complex)),
)


def _write(value: object) -> object:
    if is_array(value):
        return write_array(value)
    if is_scalar(value):
        return write_scalar(value)
    for form in _FORMS:
        if isinstance(value, form.kind):
            return {form.key: True, _DATA: form.write(value)}
    return value  # msgpack says that it cannot


def _read(found: Extension) -> object:
    if _DATA not in found:
        return found
    try:
        if _ARRAY in found:
            return read_array(found)
        for form in _FORMS:
            if form.key in found:
                return form.read(found[_DATA])
    except _MALFORMED as error:
        marks = b" ".join(key for key in found if key != _DATA)[:80]
        why = str(error) or type(error).__name__
        raise _bad(f"{marks.decode(errors='replace')}: {why}") from None
    return found


def _refuse(code: int, _data: bytes) -> NoReturn:
    raise _bad(f"extension type {code} is not known here")
