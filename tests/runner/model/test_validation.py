"""What an annotation says of inputs is held, and what is wrong with them is told by its path."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import io
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Required

import numpy as np
import pytest
import typing_extensions
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    field_validator,
    model_validator,
    v1,
)
from pydantic_core import PydanticCustomError

from streamkit.errors import BadPayload
from streamkit.runner._model import Validator


class Item(BaseModel):
    v: int


class Batch(BaseModel):
    items: list[Item]


class Numbers(RootModel[list[int]]):
    pass


@dataclass
class Point:
    x: int
    y: int = 0


class Color(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: int


class Row(typing.TypedDict):  # not that of typing_extensions
    a: int
    b: NotRequired[list[int]]


class Wide(Row, total=False):
    c: Required[int]
    d: int


class Tree(typing.TypedDict):
    leaf: int
    inner: NotRequired[list[Tree]]


class Other(typing_extensions.TypedDict):
    v: int


def mistakes(annotation: Any, value: object) -> list[str]:
    """The lines under the heading."""
    with pytest.raises(BadPayload) as caught:
        Validator(annotation)(value)
    heading, *lines = str(caught.value).split("\n")
    assert heading == ("Input Parsing Error:" if len(lines) == 1 else "Input Parsing Errors:")
    assert all(line.startswith("  ") and line.endswith(".") for line in lines)
    return [line.strip() for line in lines]


def paths(annotation: Any, value: object) -> list[str]:
    return [line.split("`")[1] for line in mistakes(annotation, value)]


# -- what is validated -------------------------------------------------------------------------

VALID: list[tuple[Any, object, object]] = [
    (Item, {"v": "1"}, Item(v=1)),
    (Batch, {"items": [{"v": 1}]}, Batch(items=[Item(v=1)])),
    (list[Item], [{"v": 1}], [Item(v=1)]),
    (typing.List[Item], [{"v": 1}], [Item(v=1)]),  # noqa: UP006
    (dict[str, Item], {"a": {"v": 1}}, {"a": Item(v=1)}),
    (Item | Point, {"x": 1}, Point(1)),
    (typing.Optional[Item], None, None),  # noqa: UP045
    (Numbers, [1], Numbers([1])),
    (Point, {"x": 1}, Point(1, 0)),
    (Pair, [1, 2], Pair(1, 2)),
    (Row, {"a": "1"}, {"a": 1}),
    (Other, {"v": "1"}, {"v": 1}),
    (list[Row], [{"a": 1, "b": ["2"]}], [{"a": 1, "b": [2]}]),
    (typing.List[Row], [{"a": "1"}], [{"a": 1}]),  # noqa: UP006
    (Row | None, {"a": "1"}, {"a": 1}),
    (typing.Optional[Row], {"a": "1"}, {"a": 1}),  # noqa: UP045
    (Annotated[Row, Field(description="A row.")], {"a": "1"}, {"a": 1}),
    (Wide, {"a": "1", "c": "2"}, {"a": 1, "c": 2}),
    (Tree, {"leaf": 1, "inner": [{"leaf": 2}]}, {"leaf": 1, "inner": [{"leaf": 2}]}),
    (Color, "red", Color.RED),
    (Literal["a", "b"], "a", "a"),
    (Annotated[int, Field(ge=1)], "5", 5),
    (tuple[int, str], [1, "a"], (1, "a")),
    (dict, {"a": 1}, {"a": 1}),
    (int, "1", 1),
    (bytes, "ü", "ü".encode()),
]


@pytest.mark.parametrize(
    ("annotation", "value", "expected"), VALID, ids=lambda value: repr(value).split(" at 0x")[0]
)
def test_whatever_pydantic_can_validate_is_validated(annotation, value, expected) -> None:
    takes = Validator(annotation)

    assert takes.active
    assert takes.why_inactive is None
    assert takes(value) == expected
    assert type(takes(value)) is type(expected)


INVALID: list[tuple[Any, object, list[str]]] = [
    (Batch, {"items": [{"v": 1}, {"v": "x"}]}, ["items[1].v"]),
    (Batch, {}, ["items"]),
    (Batch, [], [""]),
    (list[Item], [{"v": 1}, 2], ["[1]"]),
    (dict[str, list[int]], {"a": [1, "x"]}, ["a[1]"]),
    (dict[int, int], {"a": 1}, ["a.[key]"]),
    (dict[int, str], {"a": "a"}, ["a.[key]"]),
    (Numbers, [1, "x"], ["[1]"]),
    (Point, {"x": "?"}, ["x"]),
    (list[Row], [{"a": 1}, {"a": 1, "b": ["x"]}], ["[1].b[0]"]),
    (Wide, {"a": 1}, ["c"]),
    (Tree, {"leaf": 1, "inner": [1]}, ["inner[0]"]),
    (Row | None, {}, ["a"]),
    (Annotated[int, Field(ge=1)], 0, [""]),
]


@pytest.mark.parametrize(
    ("annotation", "value", "where"), INVALID, ids=lambda value: repr(value).split(" at 0x")[0]
)
def test_each_mistake_is_told_by_its_path(annotation, value, where) -> None:
    assert paths(annotation, value) == where


class OldItem(v1.BaseModel):
    v: int


class OldBatch(v1.BaseModel):
    items: list[OldItem]


def test_a_model_of_pydantics_first_version_is_validated_by_its_own_rules() -> None:
    batch = Validator(OldBatch)({"items": [{"v": "1"}]})

    assert isinstance(batch, OldBatch)
    assert batch.items[0].v == 1
    assert mistakes(OldBatch, {"items": [{"v": 1}, {"v": "x"}, {}]}) == [
        "`items[1].v`: value is not a valid integer.",
        "`items[2].v`: field required.",
    ]
    assert paths(OldBatch, 5) == ["__root__"]
    schema = Validator(OldBatch).schema()
    assert schema is not None
    assert schema["properties"]["items"]["items"] == {"$ref": "#/components/schemas/OldItem"}
    assert set(schema["$defs"]) == {"OldItem"}


def test_inside_of_something_else_such_a_model_is_not_validated() -> None:
    validator = Validator(list[OldItem])

    assert not validator.active
    assert validator([{"v": "x"}]) == [{"v": "x"}]


def test_the_form_is_trusss() -> None:
    assert mistakes(Batch, {"items": [{"v": "x"}, {}]}) == [
        "`items[0].v`: Input should be a valid integer, unable to parse string as an integer.",
        "`items[1].v`: Field required.",
    ]
    assert mistakes(Batch, [])[0].startswith("``: Input should be a valid dictionary or ins")


# -- unions ------------------------------------------------------------------------------------


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str | None = None
    toys: list[int | Item] = []


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    inner: int = Field(alias="outer")


@pytest.mark.parametrize(
    ("annotation", "value", "where"),
    [
        (Item | Batch, {}, ["v", "items"]),
        (Item | list[Item], [{"v": "x"}], ["", "[0].v"]),
        (int | list[int], ["x"], ["", "[0]"]),
        (int | bool, {}, ["", ""]),
        (list[Item | int], [{"v": "x"}], ["[0].v", "[0]"]),
        (Dog, {"kind": "dog", "toys": [{}]}, ["toys[0]", "toys[0].v"]),
        (
            Annotated[Cat | Dog, Field(discriminator="kind")],
            {"kind": "cat", "lives": "x"},
            ["lives"],
        ),
        (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": "cow"}, [""]),
        (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": "cat"}, ["lives"]),
        (Aliased | int, {"outer": "x"}, ["outer", ""]),
        (Aliased, {}, ["outer"]),
    ],
    ids=lambda value: repr(value).split(" at 0x")[0],
)
def test_paths_are_those_of_what_was_sent_without_the_names_of_branches(
    annotation, value, where
) -> None:
    assert paths(annotation, value) == where


# -- what is not -------------------------------------------------------------------------------


class Plain:
    def __init__(self, x: int) -> None:
        self.x = x

    def method(self, x: int) -> None: ...


class Broken(BaseModel):
    x: Missing  # noqa: F821


class Raises:
    """As pydantic's own types do whose package is not installed."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> typing.NoReturn:
        raise ImportError("email-validator is not installed")


@pytest.mark.parametrize(
    "annotation",
    [
        *(inspect.Parameter.empty, Any, object, None, type(None)),
        *("Item", list["Missing"], Broken, list[Broken]),  # noqa: F821
        *(Plain, dict[str, Plain], np.ndarray, io.StringIO, Row | np.ndarray),
        *(any, len, Plain.method, io, {"a": int}, [int], (int, str), 5),
        *(collections.abc.Iterator[int], typing.Iterable[int], typing.Generator, type),
        *(typing.AsyncIterator[Item], list[typing.Iterable[int]], Item | typing.Iterable[str]),
        *(Raises, list[Raises], typing.Callable[[], int], collections.abc.Awaitable[Item]),
    ],
    ids=lambda value: repr(value).split(" at 0x")[0],
)
def test_where_an_annotation_says_nothing_that_can_be_validated_values_pass(annotation) -> None:
    takes = Validator(annotation)
    value = {"a": object()}

    assert takes(value) is value
    assert not takes.active
    assert takes.why_inactive
    assert takes.schema() is None


def test_why_values_are_not_validated_is_one_line() -> None:
    assert Validator("Missing").why_inactive == "the annotation 'Missing' does not resolve"
    assert "np.ndarray" in str(Validator(np.ndarray).why_inactive).replace("numpy.", "np.")
    assert "\n" not in str(Validator(np.ndarray).why_inactive)


def test_a_model_that_is_built_late_is_validated() -> None:
    class Late(BaseModel):
        model_config = ConfigDict(defer_build=True)

        x: int

    assert Validator(Late)({"x": "1"}) == Late(x=1)
    assert paths(Late, {"x": "?"}) == ["x"]


# -- validators of the user's ------------------------------------------------------------------


class Checked(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def check(cls, value: int) -> int:
        if value == 1:
            raise ValueError("must not be 1")
        if value == 2:
            raise AssertionError("nor 2")
        return 10 // (value - 3)

    @model_validator(mode="after")
    def whole(self) -> Checked:
        if self.x == 10:
            raise ValueError("is\nno good")
        return self


def test_what_a_validator_says_is_told() -> None:
    assert mistakes(Checked, {"x": 1}) == ["`x`: Value error, must not be 1."]
    assert mistakes(Checked, {"x": 2}) == ["`x`: Assertion failed, nor 2."]
    with pytest.raises(BadPayload, match=r"  ``: Value error, is\n  no good\.$"):
        Validator(Checked)({"x": 4})


def test_a_validator_that_breaks_is_no_mistake_of_the_clients() -> None:
    with pytest.raises(ZeroDivisionError):
        Validator(Checked)({"x": 3})


# -- bounds ------------------------------------------------------------------------------------


def test_twenty_mistakes_are_told_and_the_rest_counted() -> None:
    lines = mistakes(list[int], ["x"] * 25)

    assert lines[19].startswith("`[19]`: ")
    assert lines[20:] == ["and 5 more."]
    assert len(mistakes(list[int], ["x"] * 20)) == 20
    assert mistakes(list[int], ["x"] * 21)[20:] == ["and 1 more."]


def test_thousands_of_mistakes_are_only_counted() -> None:
    with pytest.raises(BadPayload) as caught:
        Validator(list[int])(["x"] * 5000)

    assert str(caught.value) == "Input Parsing Errors:\n  5000 of them, too many to list."


def test_a_path_and_a_message_are_cut() -> None:
    class Talks(BaseModel):
        @model_validator(mode="before")
        @classmethod
        def check(cls, value: object) -> object:
            raise ValueError("x" * 10_000)

    (path,) = paths(dict[str, dict[str, int]], {"a" * 300: {"b" * 10_000: "x"}})
    (line,) = mistakes(Talks, {})

    assert path == "a" * 200 + "…"
    assert len(line) < 600


def test_what_is_told_can_be_sent_whatever_was_sent() -> None:
    class Says(BaseModel):
        @model_validator(mode="before")
        @classmethod
        def check(cls, value: object) -> object:
            raise ValueError("\ud800")

    def say(value: object) -> object:
        raise PydanticCustomError("said", "no {what}", {"what": value})

    custom = Annotated[Any, BeforeValidator(say)]
    sent = ((dict[str, int], {"\ud800": "\ud800"}), (Says, {"\ud800": 1}), (custom, "\ud800"))
    for annotation, value in sent:
        for line in mistakes(annotation, value):
            line.encode()


# -- schemas -----------------------------------------------------------------------------------


def test_a_schema_says_what_is_taken() -> None:
    assert Validator(Row).schema() == {
        "properties": {
            "a": {"title": "A", "type": "integer"},
            "b": {"items": {"type": "integer"}, "title": "B", "type": "array"},
        },
        "required": ["a"],
        "title": "Row",
        "type": "object",
    }
    batch = Validator(Batch).schema()
    assert batch
    assert batch["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Item"}
    assert "Item" in batch["$defs"]


def test_the_schema_of_an_answer_has_the_names_that_are_sent() -> None:
    taken, given = Validator(Aliased).schema(), Validator(Aliased).schema(answer=True)

    assert taken
    assert given
    assert (list(taken["properties"]), list(given["properties"])) == (["outer"], ["inner"])


def test_what_json_has_no_words_for_has_no_schema() -> None:
    class Holds(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        array: np.ndarray

    assert Validator(Holds).active
    assert Validator(Holds).schema() is None
