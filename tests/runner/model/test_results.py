"""What a model returned, as bytes: the rules are Truss's."""

import json
import math
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import msgpack
import numpy as np
import pytest
from pydantic import BaseModel, Field, v1

from streamkit.runner._model import dump_binary, dump_json


class Out(BaseModel):
    text: str = "ü"
    ratio: float = math.nan
    when: date = date(2024, 2, 29)
    renamed: int = Field(default=1, alias="another")


# -- JSON --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None, True, 0.5]}, '{"a": [1, null, true, 0.5]}'),
        ("ü\ud800", r'"\u00fc\ud800"'),
        ([math.nan, math.inf], "[NaN, Infinity]"),
        ((1, (2,)), "[1, [2]]"),
        ({1: 2}, '{"1": 2}'),
        (None, "null"),
    ],
)
def test_json_is_as_python_writes_it(value, text) -> None:
    assert dump_json(value) == text.encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.arange(4).reshape(2, 2), "[[0, 1], [2, 3]]"),
        ({"a": [np.zeros(1)]}, '{"a": [[0.0]]}'),
        (np.array(5), "5"),
        (np.array(["ü"]), r'["\u00fc"]'),
        (np.array([None, np.int8(1)], object), "[null, 1]"),
        ([np.int64(-1), np.uint8(255)], "[-1, 255]"),
        ([np.float16(0.5), np.float32(0.5), np.float64(0.5)], "[0.5, 0.5, 0.5]"),
        (np.bool_(True), "true"),
    ],
    ids=lambda value: repr(value).split(" at 0x")[0],
)
def test_numpy_is_numbers_and_lists_wherever_it_stands(value, text) -> None:
    assert dump_json(value) == text.encode()


class Old(v1.BaseModel):
    at: date


def test_a_model_of_pydantics_first_version_is_its_own_json_too() -> None:
    assert dump_json(Old(at=date(2024, 2, 29))) == b'{"at": "2024-02-29"}'


def test_a_pydantic_model_is_its_own_json() -> None:
    assert dump_json(Out()) == Out().model_dump_json().encode()
    assert json.loads(dump_json(Out())) == {
        "text": "ü", "ratio": None, "when": "2024-02-29", "renamed": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        b"bytes", {1}, datetime.now(UTC), Decimal(1), object(), 1j, [Out()],
        {"a": Out()}, np.complex64(1), np.array([1j]), np.datetime64(1, "ns"), {(1, 2): 3},
        {np.int64(1): 2},
    ],
    ids=lambda value: repr(type(value)) + repr(value)[:9],
)  # fmt: skip
def test_what_has_no_json_is_a_type_error_as_on_truss(value) -> None:
    with pytest.raises(TypeError):
        dump_json(value)


def test_a_value_that_contains_itself_is_a_value_error() -> None:
    value: list[object] = []
    value.append(value)

    with pytest.raises(ValueError, match="Circular"):
        dump_json(value)


@pytest.mark.realtime
def test_neither_kind_of_answer_imports_numpy() -> None:
    script = (
        "import sys; from streamkit.runner._model import dump_json, dump_binary, parse_body;"
        "dump_json([1]); dump_binary([1]); parse_body(b'[1]', None);"
        "parse_body(b'\\x01', 'application/octet-stream'); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# -- msgpack -----------------------------------------------------------------------------------


def test_bytes_are_the_answer_themselves() -> None:
    assert dump_binary(b"\x00\x01") == b"\x00\x01"
    assert dump_binary([b"\x00"]) == b"\x91\xc4\x01\x00"
    assert dump_binary(bytearray(b"\x00")) == b"\xc4\x01\x00"


def test_a_pydantic_model_is_a_map_of_what_its_fields_hold() -> None:
    found = msgpack.unpackb(dump_binary(Out(ratio=0.5)))

    assert found["when"] == {b"__dt_date_iso__": True, b"data": "2024-02-29"}
    assert (found["text"], found["ratio"], found["renamed"]) == ("ü", 0.5, 1)


@pytest.mark.parametrize(
    "value",
    [{1}, object(), [Out()], np.array([object()])],
    ids=lambda value: repr(value).split(" at 0x")[0],
)
def test_what_has_no_msgpack_is_a_type_error_as_on_truss(value) -> None:
    with pytest.raises(TypeError):
        dump_binary(value)


def test_an_integer_of_more_than_64_bits_is_an_overflow_as_on_truss() -> None:
    with pytest.raises(OverflowError):
        dump_binary(2**64)
