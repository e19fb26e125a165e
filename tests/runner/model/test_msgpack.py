"""msgpack as Truss and msgpack_numpy write it: the bytes here are made by hand from the format."""

from __future__ import annotations

import itertools
import math
import pickle
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack
import numpy as np
import pytest

from streamkit.errors import BadPayload
from streamkit.runner._model._msgpack import pack, unpack

NAIVE = datetime(2024, 2, 29, 1, 2, 3)  # noqa: DTZ001 - Truss has them too
MINUS_TWO = timezone(timedelta(hours=-2))
IDENTITY = UUID("12345678-1234-5678-1234-567812345678")


def read(data: bytes) -> Any:
    return unpack(data, 200)


def refusal(data: bytes) -> str:
    with pytest.raises(BadPayload) as caught:
        read(data)
    assert len(str(caught.value)) < 400
    return str(caught.value).removeprefix("Invalid msgpack payload: ")


def key(name: str) -> bytes:
    """Keys of extensions are bytes, so that no JSON-like map can be taken for one."""
    return b"\xc4" + bytes([len(name)]) + name.encode()


def text(content: str) -> bytes:
    return (
        bytes([0xA0 + len(content)]) if len(content) < 32 else bytes([0xD9, len(content)])
    ) + content.encode()


def data(content: bytes) -> bytes:
    return b"\xc4" + bytes([len(content)]) + content


def extension(name: str, content: bytes) -> bytes:
    return b"\x82" + key(name) + b"\xc3" + key("data") + content


def array(kind: bytes, described: bytes, shape: bytes, content: bytes) -> bytes:
    return (
        b"\x85"
        + (key("nd") + b"\xc3")
        + (key("type") + described)
        + (key("kind") + data(kind))
        + (key("shape") + shape)
        + (key("data") + data(content))
    )


def scalar(described: str, content: bytes) -> bytes:
    return (
        b"\x83"
        + (key("nd") + b"\xc2")
        + (key("type") + text(described))
        + (key("data") + data(content))
    )


FORMS: list[tuple[Any, bytes]] = [
    (NAIVE, extension("__dt_datetime_iso__", text("2024-02-29T01:02:03"))),
    (
        datetime(2024, 2, 29, 1, 2, 3, 4, UTC),
        extension("__dt_datetime_iso__", text("2024-02-29T01:02:03.000004Z")),
    ),
    (
        datetime(2024, 2, 29, tzinfo=MINUS_TWO),
        extension("__dt_datetime_iso__", text("2024-02-29T00:00:00-02:00")),
    ),
    (date(2024, 2, 29), extension("__dt_date_iso__", text("2024-02-29"))),
    (time(1, 2, 3), extension("__dt_time_iso__", text("01:02:03"))),
    (timedelta(-1, 2, 3), extension("__dt_timedelta__", b"\x93\xff\x02\x03")),
    (Decimal("-1.10"), extension("__decimal__", text("-1.10"))),
    (Decimal("Infinity"), extension("__decimal__", text("Infinity"))),
    (IDENTITY, extension("__uuid__", text(str(IDENTITY)))),
    (1 - 2.5j, extension("complex", text("(1-2.5j)"))),
]

ARRAYS: list[tuple[Any, bytes]] = [
    (
        np.array([[1, 2, 3]], "<i2"),
        array(b"", text("<i2"), b"\x92\x01\x03", b"\1\0\2\0\3\0"),
    ),
    (np.array(1.0, ">f4"), array(b"", text(">f4"), b"\x90", b"\x3f\x80\0\0")),
    (np.zeros((2, 0), "<f8"), array(b"", text("<f8"), b"\x92\x02\x00", b"")),
    (np.array([True, False]), array(b"", text("|b1"), b"\x91\x02", b"\1\0")),
    (np.array([b"ab", b"c"]), array(b"", text("|S2"), b"\x91\x02", b"abc\0")),
    (np.array(["ü"]), array(b"", text("<U1"), b"\x91\x01", b"\xfc\0\0\0")),
    (np.array([1j], "<c8"), array(b"", text("<c8"), b"\x91\x01", b"\0\0\0\0\0\0\x80\x3f")),
    (
        np.array(["1970-01-03"], "<M8[D]"),
        array(b"", text("<M8[D]"), b"\x91\x01", b"\2\0\0\0\0\0\0\0"),
    ),
    (
        np.array([(1, [2, 3])], [("a", "<i2"), ("b", "|u1", (2,))]),
        array(
            b"V",
            b"\x92\x92" + text("a") + text("<i2") + b"\x93" + text("b") + text("|u1") + b"\x91\x02",
            b"\x91\x01",
            b"\1\0\2\3",
        ),
    ),
    (
        np.array([((7,),)], [("outer", [("inner", "|i1")])]),
        array(
            b"V",
            b"\x91\x92" + text("outer") + b"\x91\x92" + text("inner") + text("|i1"),
            b"\x91\x01",
            b"\7",
        ),
    ),
]

SCALARS: list[tuple[Any, bytes]] = [
    (np.float32(1), scalar("<f4", b"\0\0\x80\x3f")),
    (np.int64(-1), scalar("<i8", b"\xff" * 8)),
    (np.bool_(True), scalar("|b1", b"\1")),
    (np.complex64(1j), scalar("<c8", b"\0\0\0\0\0\0\x80\x3f")),
]


def named(each: object) -> str:
    return "" if isinstance(each, bytes) else repr(each)


@pytest.mark.parametrize(("value", "form"), FORMS, ids=named)
def test_times_and_numbers_have_trusss_form(value, form) -> None:
    assert pack(value) == form
    assert read(form) == value
    assert type(read(form)) is type(value)


@pytest.mark.parametrize(
    ("value", "form"), ARRAYS, ids=lambda each: str(getattr(each, "dtype", ""))
)
def test_arrays_have_msgpack_numpys_form(value, form) -> None:
    assert pack(value) == form
    found = read(form)
    assert found.dtype == value.dtype
    assert found.shape == value.shape
    assert np.array_equal(found, value)


@pytest.mark.parametrize(("value", "form"), SCALARS, ids=named)
def test_scalars_have_msgpack_numpys_form(value, form) -> None:
    assert pack(value) == form
    assert read(form) == value
    assert type(read(form)) is type(value)


def test_a_float64_is_a_float_as_on_truss() -> None:
    assert pack(np.float64(0.5)) == b"\xcb\x3f\xe0\0\0\0\0\0\0"


def test_an_array_is_written_in_the_order_of_c() -> None:
    value = np.asfortranarray([[1, 2], [3, 4]])

    assert np.array_equal(read(pack(value)), value)
    assert np.array_equal(read(pack(value[:, 1])), [2, 4])


def test_an_array_that_was_read_is_a_view_of_the_body_and_read_only_as_on_truss() -> None:
    assert not read(ARRAYS[0][1]).flags.writeable


def test_forms_may_stand_anywhere_in_a_value() -> None:
    value = {"a": [1, {"when": date(2024, 1, 2), "raw": b"\0"}], "t": (Decimal(1), None)}

    assert read(pack(value)) == {**value, "t": [Decimal(1), None]}


def test_text_with_the_names_of_a_form_is_a_map() -> None:
    for name in ("__decimal__", "nd", "complex", "__dt_date_iso__"):
        assert read(msgpack.packb({name: True, "data": "1"})) == {name: True, "data": "1"}


def test_a_map_that_has_only_a_part_of_a_form_is_a_map() -> None:
    for part in ({b"__uuid__": True}, {b"data": 1}, {b"nd": True, b"data": b""}, {b"complex": 1}):
        assert read(msgpack.packb(part)) == part


def test_what_old_releases_of_msgpack_numpy_wrote_is_read() -> None:
    form = {b"nd": True, b"type": b"|u1", b"shape": [2], b"data": b"\1\2"}

    assert read(msgpack.packb(form)).tolist() == [1, 2]


# -- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (b"\x93\x01", ""),
        (b"\x01\x02", ""),
        (b"\xc1", "a byte that no value begins with"),
        (b"\xa1\xff", ""),
        (b"\x81\x01\x01", ""),
        (b"\xdd\xff\xff\xff\xff", ""),
        (b"\xc6\xff\xff\xff\xff", ""),
        (b"\xd4\x05a", "extension type 5"),
        (b"\x91" * 2000, "nested too deep"),
    ],
)
def test_what_is_no_msgpack_is_refused(body, said) -> None:
    assert said in refusal(body)


class Boom:
    def __reduce__(self) -> Any:
        return sys.exit, ("unpickled",)


def test_nothing_is_ever_unpickled() -> None:
    for described in ("|O", "|V8", "<f8"):
        body = array(b"O", text(described), b"\x91\x01", pickle.dumps(Boom()))
        assert "not unpickled" in refusal(body)


@pytest.mark.parametrize("described", ["|O", "O", "|O8", "object", "|T16", "|V8,O", "(2,)O"])
def test_an_array_whose_bytes_are_addresses_is_refused(described) -> None:
    # numpy itself takes |O and |T16, and follows the addresses.
    for kind in (b"", b"V"):
        assert "are not read" in refusal(array(kind, text(described), b"\x91\x01", b"\1" * 16))
    fields = b"\x91\x92" + text("a") + text(described)
    assert "are not read" in refusal(array(b"V", fields, b"\x91\x01", b"\1" * 16))
    assert "are not read" in refusal(scalar(described, b"\1" * 16))


@pytest.mark.parametrize(
    ("described", "shape", "content"),
    [
        ("<f4", [2], b"1234"),
        ("<f4", [1], b"12345"),
        ("<f4", [-1], b"1234"),
        ("<f4", [-1, -1], b"1234"),
        ("<f4", [0, -1], b""),
        ("<f4", [2**62, 2**62], b""),
        ("<f4", [1] * 65, b"1234"),
        ("|u1", [2**63] * 1_000_000, b"1"),  # their product would take minutes
        ("|V0", [2**40], b""),
        ("<U1", [1], b"\xff\xff\xff\x7f"),
        ("|u1", [2**40, 0], b""),
        ("<M8[nonsense]", [1], b"12345678"),
        ("<i999999999", [0], b""),
        ("<f4", "1", b"1234"),
        ("<f4", [1.5], b"1234"),
        ("<f4", None, b"1234"),
        ("<f4", [1], "1234"),
        (None, [1], b"1234"),
        ([["a"]], [1], b"1234"),
        ([["a", "<f4"], ["a", "<f4"]], [0], b""),
        ([["a", "<f4", [2**62]]], [0], b""),
        ([["a", "<U1"]], [1], b"\xff\xff\xff\x7f"),
        ([[b"\xff", "<f4"]], [0], b""),
    ],
)
def test_an_array_that_makes_no_sense_is_refused(described, shape, content) -> None:
    form = {b"nd": True, b"type": described, b"kind": b"", b"shape": shape, b"data": content}

    assert refusal(msgpack.packb([form]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("__dt_datetime_iso__", "yesterday"),
        ("__dt_date_iso__", 5),
        ("__dt_time_iso__", "25:00"),
        ("__dt_timedelta__", [1, 2]),
        ("__dt_timedelta__", [10**12, 0, 0]),
        ("__dt_timedelta__", [math.nan, 0, 0]),
        ("__dt_timedelta__", "abc"),
        ("__decimal__", "1,5"),
        ("__decimal__", [0, [1], 2]),
        ("__uuid__", "1234"),
        ("__uuid__", None),
        ("complex", "1+"),
        ("complex", [1, 2]),
    ],
)
def test_a_form_that_makes_no_sense_is_refused_and_named(name, content) -> None:
    said = refusal(msgpack.packb({name.encode(): True, b"data": content}))

    assert said.startswith(f"{name}: ")


def test_an_array_for_a_server_without_numpy_is_refused_and_says_so(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)

    assert refusal(ARRAYS[0][1]).endswith("this server has no numpy")
    assert read(FORMS[0][1]) == FORMS[0][0]
    assert pack(FORMS[0][0]) == FORMS[0][1]


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        object(),
        [object()],
        np.array([object()]),
        np.array(["a"], np.dtypes.StringDType()),
        np.array([(None,)], [("a", "O")]),
        np.datetime64("2024-01-01"),
    ],
    ids=lambda value: repr(value).split(" at 0x")[0],
)
def test_what_has_no_form_is_a_type_error(value) -> None:
    with pytest.raises(TypeError):
        pack(value)


def test_a_time_with_a_zone_has_no_form_as_on_truss() -> None:
    with pytest.raises(ValueError, match="zone"):
        pack(time(1, tzinfo=UTC))


def test_a_body_that_claims_more_than_it_holds_costs_nothing() -> None:
    claims = itertools.repeat(b"\xdd\x00\x10\x00\x00", 1000)

    assert refusal(b"".join(claims) + b"\x01" * 0x100000)
