"""Bodies: read whole, understood only where somebody needs it, refused with the words of Truss."""

import json

import anyio
import fastapi
import msgpack
import pytest
from pydantic import BaseModel, field_validator
from typing_extensions import TypedDict

from streamkit.testing import Exchange

NO_JSON = b"\xff no json"


class Point(BaseModel):
    x: int
    y: list[int] = []


class Named(TypedDict):
    name: str


def refused(exchange: Exchange, status: int) -> str:
    assert exchange.status == status
    assert exchange.headers_received["x-baseten-error-source"] == "04"
    assert exchange.headers_received["x-baseten-error-code"] == "700"
    return json.loads(exchange.data)["error"]


# -- who needs it ------------------------------------------------------------------------------


class RequestOnly:
    async def predict(self, request: fastapi.Request):
        return len(await request.body())


class Nothing:
    def predict(self):
        return "nothing"


class RequestThenInputs:
    """Truss parses here, against its documentation."""

    async def preprocess(self, request: fastapi.Request):
        return len(await request.body())

    async def predict(self, inputs):
        return inputs


class RequestThenPostprocess:
    async def predict(self, request: fastapi.Request):
        return len(await request.body())

    def postprocess(self, inputs, request: fastapi.Request):
        return inputs


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (RequestOnly, len(NO_JSON)),
        (Nothing, "nothing"),
        (RequestThenInputs, len(NO_JSON)),
        (RequestThenPostprocess, len(NO_JSON)),
    ],
)
async def test_a_body_that_no_stage_needs_is_not_understood(serve, ask, model, answer) -> None:
    exchange = await ask(serve(model), body=NO_JSON).run()

    assert (exchange.status, json.loads(exchange.data)) == (200, answer)


class Takes:
    async def predict(self, inputs):
        return inputs


class Routes:
    """Each ``/v1`` method has its own word in what it takes."""

    async def predict(self, request: fastapi.Request):
        return None

    async def chat_completions(self, inputs: Point):
        return inputs.x

    async def completions(self, inputs):
        return inputs

    async def embeddings(self, request: fastapi.Request):
        return len(await request.body())


async def test_a_route_of_openais_reads_what_its_own_method_takes(serve, ask) -> None:
    app = serve(Routes)

    model = await ask(app, {"x": 3}, path="/v1/chat/completions").run()
    anything = await ask(app, {"x": "?"}, path="/v1/completions").run()
    unread = await ask(app, body=NO_JSON, path="/v1/embeddings").run()
    wrong = await ask(app, {"x": "?"}, path="/v1/chat/completions").run()

    assert (model.text, anything.text, unread.text) == ("3", '{"x": "?"}', str(len(NO_JSON)))
    assert "`x`: Input should be a valid integer" in refused(wrong, 400)


@pytest.mark.parametrize("path", ["/predict", "/invocations", "/v1/models/any.name:predict"])
async def test_every_path_of_predict_runs_it(serve, ask, path) -> None:
    assert (await ask(serve(Takes), [1], path=path).run()).text == "[1]"


# -- what it may be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b'{"a": 1}', '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf" + b'{"a": 1}'],
    ids=["utf-8", "utf-16", "byte order mark"],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form"])
async def test_json_may_be_declared_as_anything(serve, ask, body, kind) -> None:
    exchange = await ask(serve(Takes), body=body, headers={"content-type": kind}).run()

    assert exchange.text == '{"a": 1}'


@pytest.mark.parametrize(
    "body",
    [b"", b"{", NO_JSON, b"[" * 100_000, b"1" * 5000, b"NaN"],
    ids=["empty", "half", "bytes", "deep", "long integer", "nan"],
)
async def test_what_is_no_json_is_400(serve, ask, body) -> None:
    assert refused(await ask(serve(Takes), body=body).run(), 400).startswith("Invalid JSON payload")


async def test_msgpack_that_is_none_is_400(serve, ask) -> None:
    headers = {"content-type": "application/octet-stream"}

    refused(await ask(serve(Takes), body=b"\xc1", headers=headers).run(), 400)


async def test_msgpack_is_validated_too(serve, ask) -> None:
    class Validates:
        async def predict(self, inputs: Point):
            return inputs.x

    headers = {"content-type": "application/octet-stream"}
    app = serve(Validates)

    right = await ask(app, body=msgpack.packb({"x": 3}), headers=headers).run()
    wrong = await ask(app, body=msgpack.packb({"x": "?"}), headers=headers).run()

    assert msgpack.unpackb(right.data) == 3
    assert "`x`" in refused(wrong, 400)


@pytest.mark.parametrize(
    ("annotation", "right", "wrong", "path"),
    [
        (Point, {"x": 1}, {"x": 1, "y": [1, "?"]}, "`y[1]`"),
        (list[Point], [{"x": 1}], [{"x": 1}, {}], "`[1].x`"),
        (Point | None, None, 7, "Input should be a valid dictionary"),
        (Named, {"name": "n"}, {}, "`name`"),
        ("Point", {"x": 1}, {}, "`x`"),
    ],
    ids=["model", "list", "optional", "typed dict", "text"],
)
async def test_what_the_first_stage_is_annotated_with_is_held(
    serve, ask, annotation, right, wrong, path
) -> None:
    class Validates:
        async def preprocess(self, inputs):
            return inputs

        preprocess.__annotations__["inputs"] = annotation

        async def predict(self, inputs: Named):  # a later stage's is not looked at
            return True

    app = serve(Validates)

    assert (await ask(app, right).run()).status == 200
    said = refused(await ask(app, wrong).run(), 400)
    assert said.startswith("Input Parsing Error")
    assert path in said


class Array:
    """As numpy's: whether it equals something is no yes or no."""

    def __eq__(self, _):
        raise ValueError("ambiguous")

    __hash__ = None

    def __repr__(self):
        return "Hidden"


LISTED = list["Hidden"]  # noqa: F821 - for type checkers alone


@pytest.mark.parametrize("annotation", ["Hidden", "list[Hidden]", LISTED, Array()])
async def test_an_annotation_that_does_not_resolve_is_said_to_hold_nothing(
    serve, ask, caplog, annotation
) -> None:
    class Takes:
        async def predict(self, inputs):
            return inputs

        predict.__annotations__["inputs"] = annotation

    exchange = await ask(serve(Takes), {"anything": 1}).run()

    assert exchange.text == '{"anything": 1}'
    assert "inputs of `predict` are not validated: " in caplog.text
    assert "Hidden" in caplog.text


# -- how long it may be, and take --------------------------------------------------------------


async def test_a_body_that_is_too_long_is_413_and_the_connection_is_closed(serve, ask) -> None:
    app = serve(Takes, max_body_bytes=10)

    said = [
        await ask(app, body=b"x" * 11).run(),
        await ask(app, body=b"1", headers={"content-length": "11"}).run(),
        await ask(app, body=[b"x" * 6, b"x" * 6]).run(),
    ]

    for exchange in said:
        assert refused(exchange, 413) == "the body is longer than 10 bytes"
        assert exchange.headers_received["connection"] == "close"
    assert dict(app.runner.statistics().refused) == {"invalid": 3}


async def test_a_body_that_does_not_come_is_408(serve, ask) -> None:
    app = serve(Takes, read_timeout=2)

    exchange = await ask(app, body=b"[", leaves_before_body_ends=True, leaves_after_seconds=9).run()

    assert "did not arrive within 2 s; 1 bytes of it did" in refused(exchange, 408)


async def test_a_deadline_also_ends_the_wait_for_a_body(serve, ask) -> None:
    app = serve(Takes, request_timeout=2)

    exchange = await ask(app, body=b"[", leaves_before_body_ends=True, leaves_after_seconds=9).run()

    assert (exchange.status, exchange.ended_at) == (504, pytest.approx(2))


async def test_a_client_that_leaves_while_it_sends_is_in_the_books(serve, ask) -> None:
    app = serve(Takes)

    exchange = await ask(
        app, body=b"[", leaves_before_body_ends=True, headers={"x-request-id": "r"}
    ).run()
    await app.runner.in_flight.wait_idle()

    assert exchange.outcome == "returned"
    account = app.runner.find("r")
    assert (account.reason, account.cancelled_in) == ("client_disconnect", "reading")


async def test_who_is_refused_has_run_nothing(serve, ask) -> None:
    ran = []

    class Counts:
        async def predict(self, inputs: Point):
            ran.append(inputs)

    app = serve(Counts)

    await ask(app, {}).run()
    await ask(app, body=b"{").run()

    assert ran == []
    assert dict(app.runner.statistics().refused) == {"invalid": 2}
    assert app.runner.admission.admitted == 0


async def test_a_validator_of_the_models_that_breaks_is_the_models_failure(serve, ask) -> None:
    class Breaks(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            raise KeyError(value)

    class Validates:
        async def predict(self, inputs: Breaks):
            return 1

    exchange = await ask(serve(Validates), {"x": 1}).run()

    assert exchange.status == 500
    assert exchange.headers_received["x-baseten-error-code"] == "600"


async def test_many_bodies_are_read_side_by_side(serve, ask) -> None:
    class Slow:
        async def predict(self, inputs):
            await anyio.sleep(1)
            return inputs

    app = serve(Slow)
    async with anyio.create_task_group() as tasks:
        exchanges = [ask(app, number) for number in range(5)]
        for exchange in exchanges:
            tasks.start_soon(exchange.run)

    assert [exchange.text for exchange in exchanges] == list("01234")
    assert [exchange.ended_at for exchange in exchanges] == [
        pytest.approx(seconds) for seconds in range(1, 6)
    ]


async def test_annotations_that_are_no_model_are_held_unless_told_otherwise(serve, ask) -> None:
    class Loose:
        def predict(self, inputs: dict[str, str]):
            return inputs["speed"]

    class Strict:
        def predict(self, inputs: Point):
            return inputs.x

    assert (await ask(serve(Loose), {"speed": 1.5}).run()).status == 400
    loose = serve(Loose, validate_inputs="models")
    assert (await ask(loose, {"speed": 1.5}).run()).data == b"1.5"
    strict = serve(Strict, validate_inputs="models")
    assert (await ask(strict, {"x": "no"}).run()).status == 400
