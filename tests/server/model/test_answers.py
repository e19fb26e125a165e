"""What a model gives, in the form that its client asked for: Truss's forms, and ours."""

import json
from collections.abc import AsyncGenerator, Generator

import anyio
import fastapi.responses
import msgpack
import numpy as np
import pytest
from pydantic import BaseModel
from sse_starlette import EventSourceResponse
from starlette.background import BackgroundTask
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)

from streamkit.asgi import ByteStream, EventStream, ServerEvent

OCTETS = "application/octet-stream"


class Gives:
    """Answers with what it was made with."""

    def __init__(self, value: object) -> None:
        self.value = value

    async def predict(self) -> object:
        return self.value() if callable(self.value) else self.value


class Yields:
    def __init__(self, *chunks: object) -> None:
        self.chunks = chunks

    async def predict(self):
        for chunk in self.chunks:
            await anyio.sleep(0.01)
            yield chunk


class SyncYields(Yields):
    def predict(self):
        yield from self.chunks


STREAMS = pytest.mark.parametrize("kind", [Yields, SyncYields])


class Point(BaseModel):
    x: float


# -- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None, True]}, '{"a": [1, null, true]}'),
        ("é", '"\\u00e9"'),
        (None, "null"),
        (float("nan"), "NaN"),
        (np.array([1, 2]), "[1, 2]"),
        ({"n": np.float32(0.5)}, '{"n": 0.5}'),
        (Point(x=1), '{"x":1.0}'),
    ],
)
async def test_a_value_is_json_as_truss_writes_it(serve, ask, value, text) -> None:
    exchange = await ask(serve(Gives(value))).run()

    assert (exchange.status, exchange.text) == (200, text)
    assert exchange.headers_received["content-type"] == "application/json"


async def test_who_sends_msgpack_gets_msgpack(serve, ask) -> None:
    binary = {"content-type": f"{OCTETS}; charset=x"}

    exchange = await ask(serve(Gives({"a": 1})), body=msgpack.packb(1), headers=binary).run()

    assert msgpack.unpackb(exchange.data) == {"a": 1}
    assert exchange.headers_received["content-type"] == OCTETS


async def test_bytes_for_who_sends_msgpack_are_the_answer_as_they_are(serve, ask) -> None:
    headers = {"content-type": OCTETS}

    exchange = await ask(serve(Gives(b"\x00\x01")), body=msgpack.packb(1), headers=headers).run()

    assert exchange.data == b"\x00\x01"


async def test_the_path_for_binary_alone_changes_nothing(serve, ask) -> None:
    exchange = await ask(serve(Gives([1])), path="/v1/models/model:predict_binary").run()

    assert exchange.text == "[1]"


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, {"p": Point(x=1)}, np.datetime64("2020")])
async def test_what_json_cannot_hold_is_500_and_named(serve, ask, value) -> None:
    exchange = await ask(serve(Gives(value))).run()

    assert exchange.status == 500
    assert json.loads(exchange.data)["error"].startswith("Unhandled exception: TypeError: ")
    assert exchange.headers_received["x-baseten-error-code"] == "500"


# -- streams -----------------------------------------------------------------------------------


@STREAMS
async def test_a_stream_is_raw_chunks_as_they_come(serve, ask, kind) -> None:
    exchange = await ask(serve(kind("a", b"\xff", bytearray(b"c")))).run()

    assert exchange.status == 200
    assert [chunk.data for chunk in exchange.chunks] == [b"a", b"\xff", b"c"]
    assert exchange.headers_received["content-type"] == OCTETS
    assert exchange.completed


@STREAMS
async def test_a_stream_for_who_accepts_events_is_events(serve, ask, kind) -> None:
    app = serve(kind("a\nb", "é".encode()[:1], "é".encode()[1:], {"n": np.int64(3)}, Point(x=1)))

    exchange = await ask(app, accept="text/event-stream").run()

    assert exchange.headers_received["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, last = exchange.events
    assert [event.data for event in chunks] == ["a\nb", "é", '{"n": 3}', '{"x":1.0}']
    assert (last.event, last.json()) == ("done", {"finish_reason": "stop", "tokens": 5})


async def test_a_model_can_name_its_events(serve, ask) -> None:
    app = serve(Yields(ServerEvent(event="step", data={"n": 1})))

    exchange = await ask(app, accept="text/event-stream").run()

    assert (exchange.events[0].event, exchange.events[0].data) == ("step", '{"n":1}')


async def test_the_silence_of_an_event_stream_is_filled(serve, ask) -> None:
    class Slow:
        async def predict(self):
            await anyio.sleep(2.5)
            yield "late"

    exchange = await ask(serve(Slow, heartbeat=1.0), accept="text/event-stream").run()

    assert exchange.chunks[0].data == b": \r\n\r\n"
    assert exchange.chunks[0].at == pytest.approx(1.0)
    assert exchange.events[0].data == "late"


@STREAMS
async def test_a_stream_for_who_accepts_json_alone_is_one_text(serve, ask, kind) -> None:
    app = serve(kind("a", "é".encode()[:1], "é".encode()[1:], 7))

    exchange = await ask(app, accept="application/json").run()

    assert exchange.text == '"a\\u00e97"'
    assert exchange.headers_received["content-type"] == "application/json"


@pytest.mark.parametrize(
    "headers",
    [
        {"accept": "application/json, */*"},
        {"accept": "Application/JSON"},
        {"accept": "application/json", "user-agent": "OpenAI/Python 1.61.0"},
    ],
)
async def test_only_that_very_header_joins_and_not_of_openais_client(serve, ask, headers) -> None:
    exchange = await ask(serve(Yields("a", "b")), headers=headers).run()

    assert [chunk.data for chunk in exchange.chunks] == [b"a", b"b"]


async def test_a_joined_stream_for_who_sends_msgpack_is_msgpack(serve, ask) -> None:
    headers = {"content-type": OCTETS, "accept": "application/json"}

    exchange = await ask(serve(Yields("a", "b")), body=msgpack.packb(1), headers=headers).run()

    assert msgpack.unpackb(exchange.data) == "ab"


async def test_a_joined_stream_that_is_no_text_is_500(serve, ask) -> None:
    exchange = await ask(serve(Yields(b"\xff")), accept="application/json").run()

    assert exchange.status == 500
    assert "UnicodeDecodeError" in exchange.text


async def test_a_stream_without_chunks_is_whole_and_empty(serve, ask) -> None:
    exchange = await ask(serve(Yields())).run()

    assert (exchange.status, exchange.data, exchange.completed) == (200, b"", True)


async def test_the_status_waits_for_the_first_chunk(serve, ask) -> None:
    exchange = await ask(serve(Yields("a"))).run()

    assert exchange.sent[0].at == pytest.approx(0.01)


# -- responses of the model's own --------------------------------------------------------------


async def test_a_response_is_the_answer_as_it_is(serve, ask) -> None:
    response = PlainTextResponse("hello", 201, {"x-mine": "1"})

    exchange = await ask(serve(Gives(lambda: response))).run()

    assert (exchange.status, exchange.text) == (201, "hello")
    assert exchange.headers_received["x-mine"] == "1"
    assert "x-baseten-error-code" not in exchange.headers_received


@pytest.mark.parametrize(
    "make",
    [
        lambda: JSONResponse({"no": 1}, 422),
        lambda: RedirectResponse("/elsewhere"),
        lambda: StreamingResponse(iter(["x"]), 503),
        lambda: ByteStream(produce("x"), status_code=400),
    ],
    ids=["json", "redirect", "stream", "ours"],
)
async def test_a_response_of_300_and_above_says_whose_error_it_is(serve, ask, make) -> None:
    exchange = await ask(serve(Gives(make))).run()

    assert exchange.status == make().status_code
    assert exchange.headers_received["x-baseten-error-source"] == "04"
    assert exchange.headers_received["x-baseten-error-code"] == "700"


async def produce(*chunks: object):
    for chunk in chunks:
        await anyio.sleep(0.01)
        yield chunk


class Iterable:
    """It has ``__aiter__`` alone."""

    def __aiter__(self):
        return produce("a", "b")


@pytest.mark.parametrize(
    "content",
    [
        lambda: produce("a", "b"),
        lambda: (chunk for chunk in "ab"),
        lambda: ["a", "b"],
        lambda: iter("ab"),
        Iterable,
    ],
    ids=["async generator", "generator", "list", "iterator", "async iterable"],
)
@pytest.mark.parametrize("kind", [StreamingResponse, ByteStream])
async def test_a_streaming_response_streams_whatever_it_holds(serve, ask, content, kind) -> None:
    if kind is ByteStream and not isinstance(content(), AsyncGenerator | Generator):
        pytest.skip("a ByteStream wants a generator")

    exchange = await ask(serve(Gives(lambda: kind(content(), headers={"x-mine": "1"})))).run()

    assert [chunk.data for chunk in exchange.chunks] == [b"a", b"b"]
    assert exchange.headers_received["x-mine"] == "1"
    assert exchange.completed


class InItsOwnWay(StreamingResponse):
    async def stream_response(self, send) -> None:
        await super().stream_response(send)


@pytest.mark.parametrize("kind", [StreamingResponse, EventSourceResponse, EventStream, InItsOwnWay])
@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError(), 500), (fastapi.HTTPException(418), 418)]
)
async def test_a_streaming_response_that_fails_before_its_first_chunk_has_that_status(
    serve, ask, kind, error, status
) -> None:
    async def fails() -> AsyncGenerator[str]:
        raise error
        yield

    exchange = await ask(serve(Gives(lambda: kind(fails())))).run()

    assert exchange.status == status
    assert exchange.headers_received["x-baseten-error-code"] == "600"


async def test_a_status_that_is_raised_in_a_task_group_is_that_status(serve, ask) -> None:
    class Model:
        async def predict(self, inputs) -> None:
            async with anyio.create_task_group() as outer, anyio.create_task_group():
                outer.start_soon(anyio.sleep_forever)
                raise fastapi.HTTPException(418)

    exchange = await ask(serve(Model())).run()

    assert exchange.status == 418


async def test_a_response_that_sends_in_its_own_way_does_so(serve, ask) -> None:
    class Prefixed(StreamingResponse):
        async def stream_response(self, send) -> None:
            self.body_iterator = prefixed(self.body_iterator)
            await super().stream_response(send)

    async def prefixed(chunks) -> AsyncGenerator[str]:
        yield "prefix "
        async for chunk in chunks:
            yield chunk

    exchange = await ask(serve(Gives(lambda: Prefixed(produce("a"))))).run()

    assert exchange.text == "prefix a"


async def test_cookies_of_a_streaming_response_are_all_sent(serve, ask) -> None:
    def make() -> StreamingResponse:
        response = StreamingResponse(produce("a"), media_type="text/plain")
        response.set_cookie("one", "1")
        response.set_cookie("two", "2")
        return response

    exchange = await ask(serve(Gives(make))).run()

    head = exchange.sent[0].message["headers"]
    assert sum(name == b"set-cookie" for name, _ in head) == 2
    assert exchange.headers_received["content-type"] == "text/plain; charset=utf-8"


# Older releases of FastAPI have none.
FastApiEvents = getattr(fastapi.responses, "EventSourceResponse", StreamingResponse)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EventSourceResponse(produce({"data": "a"}), ping=1000),
        lambda: FastApiEvents(produce(b"data: a\r\n\r\n"), media_type="text/event-stream"),
        lambda: EventStream(produce("a")),
    ],
    ids=["sse-starlette", "fastapi", "ours"],
)
async def test_event_streams_of_any_make_work(serve, ask, make) -> None:
    exchange = await ask(serve(Gives(make))).run()

    assert exchange.events[0].data == "a"
    assert exchange.headers_received["content-type"].startswith("text/event-stream")
    assert exchange.completed


@pytest.mark.blocks_the_loop  # a file is opened, on a thread of anyio's
async def test_a_file_can_be_the_answer(serve, ask, tmp_path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"x" * 100_000)

    exchange = await ask(serve(Gives(lambda: FileResponse(file)))).run()

    assert exchange.data == file.read_bytes()
    assert exchange.completed


@pytest.mark.parametrize(
    "make",
    [
        lambda task: PlainTextResponse("x", background=task),
        lambda task: StreamingResponse(produce("x"), background=task),
        lambda task: EventSourceResponse(produce({"data": "x"}), ping=1000, background=task),
    ],
    ids=["whole", "stream", "events"],
)
async def test_the_background_task_of_a_response_runs(serve, ask, make) -> None:
    ran = []

    await ask(serve(Gives(lambda: make(BackgroundTask(lambda: ran.append(1)))))).run()

    assert ran == [1]
