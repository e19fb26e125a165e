"""A body becomes inputs, or is refused; there is no third way."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from pydantic import BaseModel

from streamkit.errors import BadPayload
from streamkit.runner._model import MAX_DEPTH, Validator, is_binary, parse_body, parse_inputs

BINARY = "application/octet-stream"


class Item(BaseModel):
    v: int


def refusal(body: bytes, content_type: str | None = None) -> str:
    with pytest.raises(BadPayload) as caught:
        parse_body(body, content_type)
    assert len(str(caught.value)) < 400
    return str(caught.value)


# -- JSON --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "", "ü\n", [], {}, [{"a": [1, None]}]])
@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/json"])
def test_any_json_value_is_taken_whatever_type_is_declared(value, content_type) -> None:
    assert parse_body(json.dumps(value).encode(), content_type) == value


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
)
def test_json_may_be_in_any_unicode(encoding) -> None:
    assert parse_body('{"ü": "\N{GRINNING FACE}"}'.encode(encoding), None) == {
        "ü": "\N{GRINNING FACE}"
    }


def test_half_of_a_surrogate_pair_is_text() -> None:
    assert parse_body(b'"\\ud800"', None) == "\ud800"
    assert parse_body(b'"\xed\xa0\x80"', None) == "\ud800"


def test_of_keys_that_are_the_same_the_last_one_counts() -> None:
    assert parse_body(b'{"a": 1, "a": 2}', None) == {"a": 2}


def test_what_is_no_json_is_refused_with_the_place() -> None:
    assert refusal(b"") == "Invalid JSON payload: Expecting value: line 1 column 1 (char 0)"
    assert refusal(b'{"a": 1,}').startswith("Invalid JSON payload: ")
    assert "line 2 column 1" in refusal(b"[\n?]")
    assert "Extra data" in refusal(b"{} {}")


@pytest.mark.parametrize("body", [b'"\xff"', b"\x00", b"\xff\xfe\x00", b"{\x00\x00\x00"])
def test_bytes_that_are_no_text_are_refused(body) -> None:
    assert refusal(body).startswith("Invalid JSON payload: ")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_refused(word) -> None:
    assert refusal(f'{{"a": [{word}]}}'.encode()) == (
        f"Invalid JSON payload: {word} is no JSON value"
    )
    assert parse_body(f'"{word}"'.encode(), None) == word


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e999999", "1" * 400 + ".0"])
def test_a_number_too_large_for_a_float_is_refused_and_not_infinite(number) -> None:
    assert refusal(f'{{"a": [{number}]}}'.encode()) == (
        f"Invalid JSON payload: the number {number[:20]} is too large for a float"
    )


def test_the_largest_and_the_smallest_float_are_numbers() -> None:
    said = b"[1.7976931348623157e308, -1.7976931348623157e308, 5e-324, 1e-999]"

    assert parse_body(said, None) == [sys.float_info.max, -sys.float_info.max, 5e-324, 0.0]


def test_an_integer_has_as_many_digits_as_python_reads() -> None:
    most = sys.get_int_max_str_digits()

    assert parse_body(b"9" * most, None) == 10**most - 1
    assert refusal(b"[" + b"9" * (most + 1) + b"]") == (
        f"Invalid JSON payload: an integer has more than {most} digits"
    )


# -- depth -------------------------------------------------------------------------------------


def nested(depth: int, opens: bytes = b"[", closes: bytes = b"]") -> bytes:
    return opens * depth + b"1" + closes * depth


@pytest.mark.parametrize("around", [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"":', b"}]")])
def test_json_is_nested_as_deep_as_the_limit_and_no_deeper(around) -> None:
    steps = MAX_DEPTH // sum(around[0].count(bracket) for bracket in b"[{")

    parse_body(nested(steps, *around), None)
    said = refusal(nested(steps + 1, *around))

    assert said == f"Invalid JSON payload: nested deeper than {MAX_DEPTH} levels"


def test_what_is_as_deep_as_the_limit_survives_being_sent_back_and_validated() -> None:
    deepest = parse_body(nested(MAX_DEPTH), None)

    assert json.dumps(deepest)
    assert Validator(list[object])(deepest) == deepest


@pytest.mark.parametrize(
    "text",
    [
        "[" * 999,
        "[" * 999 + "\\",
        "\\" * 7 + "[" * 999,
        '"' + "[" * 999,
        '\\"[{' * 999,
        "\\\\",
        '"\\" [',
        "][",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_brackets_in_text_are_no_nesting(text, encoding) -> None:
    value = {text: [[text] * 3] * 2 * MAX_DEPTH}

    assert parse_body(json.dumps(value).encode(encoding), None) == value


def test_many_brackets_are_not_deep_ones() -> None:
    assert parse_body(b"[" + b",".join([b'[{"a":[]}]'] * 5000) + b"]", None)


def test_brackets_that_nothing_closes_are_counted_too() -> None:
    refusal(b"[" * 1_000_000)
    refusal(b'{"a":' * 100_000)
    refusal(b"[[],[" * 100_000)


CRASH = """
import sys
from streamkit.errors import BadPayload
from streamkit.runner._model import parse_body
sys.setrecursionlimit(10**9)
for body, kind in [(b"[" * 2_000_000, None), (b"\\x91" * 2_000_000, "application/octet-stream")]:
    try:
        parse_body(body, kind)
    except BadPayload:
        print("refused")
"""


@pytest.mark.realtime
def test_a_deep_body_cannot_end_the_process_of_a_model_that_raised_the_recursion_limit() -> None:
    run = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=True)

    assert run.stdout.split() == ["refused", "refused"]


# -- msgpack -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "binary"),
    [
        ("application/octet-stream", True),
        ("Application/Octet-Stream", True),
        (" application/octet-stream ; charset=binary", True),
        ("application/octet-streams", False),
        ("application/msgpack", False),
        ("application/json", False),
        ("", False),
        (None, False),
    ],
)
def test_msgpack_is_what_is_declared_as_bytes(content_type, binary) -> None:
    assert is_binary(content_type) is binary
    if binary:
        assert parse_body(b"\x93\x01\xc0\xa1a", content_type) == [1, None, "a"]


def test_msgpack_is_nested_as_deep_as_the_limit_and_no_deeper() -> None:
    parse_body(b"\x91" * MAX_DEPTH + b"\x01", BINARY)
    parse_body(b"\x81\xa1a" * MAX_DEPTH + b"\x01", BINARY)

    for body in (b"\x91" * (MAX_DEPTH + 1) + b"\x01", b"\x81\xa1a" * (MAX_DEPTH + 1) + b"\x01"):
        assert refusal(body, BINARY) == (
            f"Invalid msgpack payload: nested deeper than {MAX_DEPTH} levels"
        )


# -- with a validator --------------------------------------------------------------------------


def test_bad_json_for_a_model_is_told_as_its_other_mistakes_are() -> None:
    with pytest.raises(BadPayload) as caught:
        parse_inputs(b"", None, Validator(Item))

    assert str(caught.value) == (
        "Input Parsing Error:\n  `__root__`: Expecting value: line 1 column 1 (char 0)."
    )


@pytest.mark.parametrize("annotation", [dict, list[Item], object])
def test_bad_json_for_anything_else_is_bad_json(annotation) -> None:
    with pytest.raises(BadPayload, match=r"^Invalid JSON payload: Expecting value"):
        parse_inputs(b"", None, Validator(annotation))


def test_either_kind_of_body_is_validated() -> None:
    takes = Validator(Item)

    assert parse_inputs(b'{"v": "1"}', None, takes) == Item(v=1)
    assert parse_inputs(b"\x81\xa1v\x01", BINARY, takes) == Item(v=1)
    for body, kind in ((b"{}", None), (b"\x80", BINARY)):
        with pytest.raises(BadPayload, match=r"`v`: Field required"):
            parse_inputs(body, kind, takes)
    with pytest.raises(BadPayload, match=r"^Invalid msgpack payload"):
        parse_inputs(b"", BINARY, takes)


# -- whatever comes ----------------------------------------------------------------------------

WORDS = [
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"null", b"NaN", b"-"),
    *(b"1", b"e999", b"9" * 5000, b" ", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80"),
    *(b"[" * 300, b'{"a":', b'"data"', b"true", b"1e5", b"\xc3"),
]
PACKED = [
    *(bytes([code]) for code in range(0x80, 0x100)),
    *(msgpack.packb(mark) for mark in (b"nd", b"type", b"kind", b"shape", b"data", b"complex")),
    *(msgpack.packb(mark) for mark in (b"__decimal__", b"__uuid__", b"__dt_timedelta__")),
    *(msgpack.packb(mark) for mark in (b"__dt_datetime_iso__", b"__dt_time_iso__", b"V", b"O")),
    *(msgpack.packb(text) for text in ("<f4", "|O", "|T16", "<U1", "|V0", "2020-01-01", "nan")),
    *(msgpack.packb(value) for value in (True, False, None, -1, 2**63, 1e300, [], [1], [-1])),
]


def survives(body: bytes, content_type: str | None) -> bool:
    """Whether it is taken; if not, it is told so in words that can be sent."""
    try:
        value = parse_body(body, content_type)
    except BadPayload as error:
        assert len(str(error).encode()) < 400  # noqa: PT017 - one of two good ends
        return False
    repr(value)
    return True


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_at_all_do_more_than_be_refused(seed) -> None:
    chance = random.Random(seed)

    for _ in range(1500):
        noise = chance.randbytes(chance.randrange(40))
        survives(noise, None)
        survives(noise, BINARY)
        survives(b"".join(chance.choices(WORDS, k=chance.randrange(12))), None)
        survives(b"".join(chance.choices(PACKED, k=chance.randrange(20))), BINARY)


def extensions(chance: random.Random) -> object:
    """A map that has some of an extension's fields, and something in them."""
    types = ["<f4", b"<f4", "<U1", "|S2", "|b1", "|O", [["a", "<i4"]], [["a"]], [[]], [1], 5]
    shapes = [[], [1], [1], [2], [2, 2], [-1], [0], [2**62, 4], [10**9, 0], [1.5], "ab", None]
    fields: list[tuple[bytes, list[Any]]] = [
        (b"nd", [True, True, False, None]),
        (b"type", types),
        (b"kind", [b"", b"", b"V", b"O", "V", None]),
        (b"shape", shapes),
        (b"data", [b"", b"1234", b"12345678", "(1+2j)", [1, 2, 3], [1e400, 0, 0], "1", None]),
        (chance.choice([b"complex", b"__decimal__", b"__uuid__"]), [True]),
        (chance.choice([b"__dt_timedelta__", b"__dt_date_iso__", b"__dt_time_iso__"]), [True]),
    ]
    return {key: chance.choice(values) for key, values in fields if chance.random() < 0.7}


@pytest.mark.parametrize("seed", range(4))
def test_no_extension_that_makes_no_sense_does_more_than_be_refused(seed) -> None:
    chance = random.Random(seed)

    taken = [survives(msgpack.packb(extensions(chance)), BINARY) for _ in range(1500)]

    assert 100 < sum(taken) < 1400


@pytest.mark.parametrize("seed", range(4))
def test_a_body_that_was_cut_or_bent_does_no_more_than_be_refused(seed) -> None:
    chance = random.Random(seed)
    value = {"text": "ü", "list": [1, 2.5, None, {"a": []}], "big": 2**63}
    for whole, kind in ((json.dumps(value).encode(), None), (msgpack.packb(value), BINARY)):
        for _ in range(500):
            bent = bytearray(whole)
            bent[chance.randrange(len(bent))] = chance.randrange(256)
            survives(bytes(bent[: chance.randrange(1, len(bent) + 1)]), kind)


# -- the page ----------------------------------------------------------------------------------


@pytest.mark.blocks_the_loop
def test_the_pages_example_is_true() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/model-payload.md").read_text()
    python, answer = re.findall(r"```(?:python|text)\n(.*?)\n```", page, re.DOTALL)
    body = re.findall(r"`(\{.*\})` is answered 400", page)[0]
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(python, "page", "exec"), names)
    takes = Validator(names["Batch"])

    with pytest.raises(BadPayload) as caught:
        parse_inputs(body.encode(), None, takes)
    assert str(caught.value) == answer
    assert f"deeper than {MAX_DEPTH} levels" in page
    assert f"more than {sys.get_int_max_str_digits()} digits" in page
