"""The OpenAPI document of a model class, and Truss's schema of it: what annotations say."""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from typing import Annotated, Any, TypedDict, Union

import fastapi
import pytest
from pydantic import BaseModel, Field

from streamkit.runner._model import examine
from streamkit.server._model._openapi import openapi
from streamkit.server._model._routes import RUN
from streamkit.server._model._schema import truss_schema
from streamkit.testing import Exchange

COMPONENT = re.compile(r"[a-zA-Z0-9._-]+")  # OpenAPI's rule for names
VERBS = {"get", "post"}


class Node(BaseModel):
    v: int
    inner: list[Node] = []


class In(BaseModel):
    nodes: list[Node]


class Out(BaseModel):
    node: Node = Field(alias="knot")


class Row(TypedDict):
    a: int


def document(model: type) -> dict[str, Any]:
    """The document of ``model``, as a client reads it; whatever it says is well-formed."""
    made = openapi(examine(model()), RUN, title="model", version="1")
    read: dict[str, Any] = json.loads(json.dumps(made, allow_nan=False))
    check(read)
    return read


def check(read: dict[str, Any]) -> None:
    """What OpenAPI 3.1 asks of a document."""
    assert read["openapi"] == "3.1.0"
    assert read["info"].keys() >= {"title", "version"}
    assert all(COMPONENT.fullmatch(name) for kind in read["components"].values() for name in kind)
    ids = []
    for path, verbs in read["paths"].items():
        assert path.startswith("/")
        assert verbs.keys() <= VERBS
        for operation in verbs.values():
            ids.append(operation["operationId"])
            check_operation(path, operation)
    assert len(ids) == len(set(ids))
    assert "$defs" not in json.dumps(read)
    for reference in references(read):
        assert resolve(read, reference) is not None, reference


def check_operation(path: str, operation: dict[str, Any]) -> None:
    named = [each["name"] for each in operation.get("parameters", ())]
    assert named == re.findall(r"\{(\w+)\}", path)
    assert all(
        each["in"] == "path" and each["required"] for each in operation.get("parameters", ())
    )
    assert operation["responses"]
    for status, response in operation["responses"].items():
        assert re.fullmatch(r"[1-5]\d\d", status)
        assert "$ref" in response or response["description"]
    if "requestBody" in operation:
        assert operation["requestBody"]["content"]


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            elif key == "mapping":
                yield from value.values()
            else:
                yield from references(value)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


def resolve(read: dict[str, Any], reference: str) -> object:
    assert reference.startswith("#/components/")
    found: Any = read
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part, {})
    return found or None


def operation(model: type, path: str = "/predict") -> dict[str, Any]:
    return document(model)["paths"][path]["post"]


def taken(model: type, path: str = "/predict") -> dict[str, Any]:
    content = operation(model, path)["requestBody"]["content"]
    assert content.keys() == {"application/json", "application/octet-stream"}
    return content["application/json"]["schema"]


def given(model: type, path: str = "/predict") -> dict[str, Any]:
    return operation(model, path)["responses"]["200"]["content"]


# -- what is taken -----------------------------------------------------------------------------


class Whole:
    """The class's own words are not those of its method."""

    def predict(self, inputs: In) -> Out:
        """Answer with a knot.

        It is the first one.
        """
        return Out(knot=inputs.nodes[0])


def test_a_body_has_the_schema_of_the_first_stage() -> None:
    schema = taken(Whole)

    assert schema["title"] == "In"
    assert schema["properties"]["nodes"]["items"] == {
        "$ref": "#/components/schemas/predict.takes.Node"
    }
    assert operation(Whole)["requestBody"]["required"] is True


def test_every_path_of_predict_is_there_and_says_the_same() -> None:
    paths = document(Whole)["paths"]
    run = [path for path, method in RUN.items() if method == "predict"]

    said = [paths[path]["post"] for path in run]
    assert all(each["requestBody"] == said[0]["requestBody"] for each in said)
    assert all(each["description"].startswith("Answer with a knot.\n\nIt is") for each in said)
    assert "/v1/chat/completions" not in paths


class Stages:
    def preprocess(self, inputs: Row):
        return inputs

    def predict(self, inputs: In) -> In:
        return inputs

    def postprocess(self, inputs: Any) -> list[int]:
        return [inputs]


def test_the_first_stage_says_what_is_taken_and_the_last_what_is_given() -> None:
    assert taken(Stages)["title"] == "Row"
    assert given(Stages)["application/json"]["schema"] == {
        "items": {"type": "integer"},
        "type": "array",
    }


class Anything:
    def predict(self, inputs):
        return inputs


class Unknown:
    def predict(self, inputs: fastapi.FastAPI):
        return inputs


@pytest.mark.parametrize("model", [Anything, Unknown])
def test_where_nothing_is_known_anything_is_taken(model) -> None:
    assert taken(model) == {}
    assert "400" in operation(model)["responses"]


class RequestOnly:
    async def predict(self, request: fastapi.Request):
        return None


class RequestFirst:
    async def preprocess(self, request: fastapi.Request):
        return None

    def predict(self, inputs: In):
        return None


@pytest.mark.parametrize("model", [RequestOnly, RequestFirst])
def test_a_body_that_is_not_parsed_has_no_schema_and_no_400(model) -> None:
    said = operation(model)

    assert said["requestBody"]["content"] == {"*/*": {}}
    assert "400" not in said["responses"]


class Routes:
    def predict(self, inputs: In):
        """Predict."""

    async def chat_completions(self, inputs: Row) -> AsyncIterator[str]:
        """Chat."""
        yield ""

    def embeddings(self, inputs: Node | list[Node]):
        """Embed."""


def test_each_route_of_openais_has_the_word_of_its_own_method() -> None:
    paths = document(Routes)["paths"]

    assert taken(Routes, "/v1/chat/completions")["title"] == "Row"
    assert taken(Routes, "/v1/embeddings")["anyOf"][0] == {
        "$ref": "#/components/schemas/embeddings.takes.Node"
    }
    assert paths["/v1/chat/completions"]["post"]["description"] == "Chat."
    assert "/v1/completions" not in paths


def test_classes_of_one_name_in_two_methods_are_two_schemas() -> None:
    def model() -> type:
        class Node(BaseModel):
            other: str

        class Holds(BaseModel):
            nodes: list[Node]

        class Two(Whole):
            def completions(self, inputs: Any):
                return None

            completions.__annotations__["inputs"] = Holds

        return Two

    schemas = document(model())["components"]["schemas"]

    assert list(schemas["completions.takes.Node"]["properties"]) == ["other"]
    assert list(schemas["predict.takes.Node"]["properties"]) == ["v", "inner"]


class Cat(BaseModel):
    kind: typing.Literal["cat"]


class Dog(BaseModel):
    kind: typing.Literal["dog"]


class Tagged:
    def predict(self, inputs: typing.Annotated[Cat | Dog, Field(discriminator="kind")]):
        return None


def test_the_mapping_of_a_discriminator_resolves() -> None:
    assert taken(Tagged)["discriminator"]["mapping"] == {
        "cat": "#/components/schemas/predict.takes.Cat",
        "dog": "#/components/schemas/predict.takes.Dog",
    }


# -- what is given -----------------------------------------------------------------------------


class Streams:
    async def predict(self, inputs):
        yield ""


class Returns:
    def predict(self, inputs) -> Iterator[str]:
        return iter(())


class Either:
    def predict(self, inputs) -> Out | Generator[str, None, None]:
        return Out.model_construct()


class Maybe:
    def predict(self, inputs) -> Out | None:
        return None


JSON, BYTES, EVENTS = "application/json", "application/octet-stream", "text/event-stream"


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (Whole, {JSON, BYTES}),
        (Anything, {JSON, BYTES}),
        (Streams, {EVENTS, JSON, BYTES}),
        (Returns, {EVENTS, JSON, BYTES}),
        (Either, {EVENTS, JSON, BYTES}),
    ],
)
def test_an_answer_comes_as_these(model, kinds) -> None:
    assert given(model).keys() == kinds


def test_a_stream_of_openais_has_no_raw_form() -> None:
    assert given(Routes, "/v1/chat/completions").keys() == {EVENTS, JSON}


def test_an_answer_has_the_schema_of_what_is_sent() -> None:
    assert list(given(Whole)[JSON]["schema"]["properties"]) == ["node"]  # not the alias
    assert given(Anything)[JSON]["schema"] == {}
    assert given(Streams)[JSON]["schema"]["type"] == "string"
    assert given(Either)[JSON]["schema"]["title"] == "Out"
    assert {"type": "null"} in given(Maybe)[JSON]["schema"]["anyOf"]


@pytest.mark.parametrize("status", ["413", "429", "499", "500", "503", "504"])
def test_each_refusal_has_trusss_form(status) -> None:
    said = document(Whole)
    refusal = resolve(said, said["paths"]["/predict"]["post"]["responses"][status]["$ref"])

    assert isinstance(refusal, dict)
    assert {"x-baseten-error-source", "x-baseten-error-code"} <= refusal["headers"].keys()
    assert ("retry-after" in refusal["headers"]) is (status in {"429", "503"})
    error = resolve(said, refusal["content"][JSON]["schema"]["$ref"])
    assert isinstance(error, dict)
    assert error["required"] == ["error"]


class Unresolved:
    def predict(self, inputs: Missing) -> list[Missing]:  # noqa: F821
        return None


class Speaks:
    async def websocket(self, websocket):
        """Say anything."""


def test_annotations_that_say_nothing_say_nothing() -> None:
    assert taken(Unresolved) == {}
    assert given(Unresolved)[JSON]["schema"] == {}


def test_a_model_with_a_websocket_has_no_predict() -> None:
    paths = document(Speaks)["paths"]

    assert paths["/v1/websocket"]["get"]["description"] == "Say anything."
    assert not paths.keys() & {"/predict", "/v1/models/{model_name}:predict"}


# -- over HTTP ---------------------------------------------------------------------------------


async def get(app: Any, path: str) -> Exchange:
    return await Exchange(app, method="GET", path=path).run()


async def test_it_is_served_once_the_model_is_loaded(serve) -> None:
    app = serve(Whole, loaded=False)

    before = await get(app, "/openapi.json")
    app.service.load()
    after = await get(app, "/openapi.json")

    assert (before.status, after.status) == (503, 200)
    assert after.headers_received["content-type"] == "application/json"
    check(json.loads(after.data))
    assert json.loads(after.data)["info"]["title"] == "model"


class Endless(BaseModel):
    at_most: float = math.inf
    at_least: Annotated[float, Field(ge=-math.inf)] = math.nan
    some: list[float] = [1.0, math.nan]


class Unsaid:
    """What JSON has no word for is left out, and no reason to say nothing."""

    def predict(self, inputs: Endless) -> Endless:
        return inputs

    predict.__doc__ = "half of a pair: \ud800"


@pytest.mark.parametrize("path", ["/openapi.json", "/v1/models/any/schema"])
async def test_what_json_cannot_say_keeps_no_schema_from_being_served(serve, path) -> None:
    exchange = await get(serve(Unsaid), path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert exchange.status == 200
    said = json.loads(exchange.data, parse_constant=refuse)
    schema = said.get("input_schema") or taken(Unsaid)
    assert set(schema["properties"]) == {"at_most", "at_least", "some"}
    assert "default" not in schema["properties"]["at_most"]


class Everything(Whole):
    def chat_completions(self, inputs):
        return None

    completions = embeddings = messages = responses = chat_completions


async def test_every_path_that_is_answered_is_in_it(serve) -> None:
    app = serve(Everything)
    answered = {path.rstrip("/") or "/" for path in app.paths}

    said = json.loads((await get(app, "/openapi.json")).data)

    assert said["paths"].keys() == answered - {"/v1/websocket"}


# -- Truss's schema ----------------------------------------------------------------------------


def schema(model: type) -> dict[str, Any] | None:
    return truss_schema(examine(model()))


def test_the_schema_of_models_is_trusss() -> None:
    assert schema(Whole) == {
        "input_schema": In.model_json_schema(),
        "output_schema": Out.model_json_schema(),
        "supports_streaming": False,
    }


def outputs(annotation: Any) -> Any:
    class Model:
        def predict(self, inputs): ...

        predict.__annotations__["return"] = annotation

    return (found := schema(Model)) and (found["output_schema"], found["supports_streaming"])


OUT = Out.model_json_schema()


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Out, (OUT, False)),
        ("Out", (OUT, False)),  # Truss sees nothing in postponed annotations
        (Generator[str, None, None], (None, True)),
        (AsyncIterator[str], (None, True)),
        (Awaitable[Out], (OUT, False)),
        (Union[Out, Generator[str, None, None]], (OUT, True)),  # noqa: UP007
        (Awaitable[Out] | AsyncIterator[str], (OUT, True)),
        (Out | Iterator[str], (OUT, True)),
        (str | Generator[str, None, None], None),
        (Out | In, None),
        (Out | None, None),
        (dict[str, Any], None),
        (None, None),
        ("Missing", None),
    ],
    ids=repr,
)
def test_what_is_given_is_told_as_truss_tells_it(annotation, expected) -> None:
    assert outputs(annotation) == expected


@pytest.mark.parametrize("model", [Anything, Streams, RequestOnly, Unresolved, Speaks])
def test_without_an_annotation_that_says_something_there_is_no_schema(model) -> None:
    assert schema(model) is None


def test_stages_around_predict_have_the_word_in_trusss_schema_too() -> None:
    found = schema(Stages)

    assert found
    assert found["input_schema"]["title"] == "Row"
    assert (found["output_schema"], found["supports_streaming"]) == (None, None)


async def test_trusss_schema_is_served_where_truss_has_it(serve) -> None:
    path = "/v1/models/any/schema"
    loading = await get(serve(Whole, loaded=False), path)
    known = await get(serve(Whole), path)
    unknown = await get(serve(Anything), path)

    assert [loading.status, known.status, unknown.status] == [503, 200, 404]
    assert json.loads(known.data) == schema(Whole)
    assert json.loads(unknown.data) == {"error": "No schema found"}
    assert json.loads(loading.data) == {"error": "Schema not available, please try again later."}
