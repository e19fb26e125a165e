"""Errors as Truss's clients know them, and where the model broke for who reads the log."""

import asyncio
import json
import logging
import sys
import traceback

import anyio
import fastapi
import pytest
from starlette.exceptions import HTTPException

from streamkit.errors import RequestRefused
from streamkit.testing import Exchange

FIXED = "Internal Server Error (in model/chainlet)."
RAW = None
EVENTS = "text/event-stream"
JOINED = "application/json"


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def predict(self):
        raise self.error


class RaisesInThread(Raises):
    def predict(self):
        raise self.error


class YieldsAndRaises:
    def __init__(self, error: BaseException, *chunks: object) -> None:
        self.error = error
        self.chunks = chunks

    async def predict(self):
        for chunk in self.chunks:
            yield chunk
        raise self.error


def said(exchange: Exchange) -> tuple[int | None, object, str | None]:
    """Status, error and code; the source is always the same."""
    headers = exchange.headers_received
    assert headers["content-type"] == "application/json"
    assert headers["x-baseten-error-source"] == "04"
    return exchange.status, json.loads(exchange.data)["error"], headers["x-baseten-error-code"]


# -- before the first byte ---------------------------------------------------------------------

WAYS = pytest.mark.parametrize(
    ("kind", "accept"),
    [
        pytest.param(Raises, RAW, id="coroutine"),
        pytest.param(RaisesInThread, RAW, id="thread"),
        pytest.param(YieldsAndRaises, RAW, id="raw stream"),
        pytest.param(YieldsAndRaises, EVENTS, id="events"),
        pytest.param(YieldsAndRaises, JOINED, id="joined stream"),
    ],
)


@WAYS
async def test_an_error_of_the_models_is_500_and_keeps_its_innards(
    serve, ask, kind, accept
) -> None:
    exchange = await ask(serve(kind(RuntimeError("secret"))), accept=accept).run()

    assert said(exchange) == (500, FIXED, "600")


@WAYS
@pytest.mark.parametrize(
    "http_error",
    [
        pytest.param(HTTPException, id="starlette's"),
        pytest.param(fastapi.HTTPException, id="fastapi's"),
    ],
)
async def test_an_http_exception_keeps_status_detail_and_headers(
    serve, ask, kind, accept, http_error
) -> None:
    error = http_error(418, "a teapot", {"x-kettle": "on"})

    exchange = await ask(serve(kind(error)), accept=accept).run()

    assert said(exchange) == (418, "a teapot", "600")
    assert exchange.headers_received["x-kettle"] == "on"


@pytest.mark.parametrize("detail", [{"why": [1]}, 5, None, ["a"]])
async def test_the_detail_of_an_http_exception_may_be_any_json(serve, ask, detail) -> None:
    exchange = await ask(serve(Raises(fastapi.HTTPException(400, detail)))).run()

    # FastAPI fills in the status's own phrase where there is none.
    assert said(exchange) == (400, "Bad Request" if detail is None else detail, "600")


async def test_a_detail_that_json_cannot_hold_is_told_as_text(serve, ask) -> None:
    exchange = await ask(serve(Raises(fastapi.HTTPException(400, {1, 2})))).run()

    assert said(exchange) == (400, "{1, 2}", "600")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_that_has_no_body_gets_none(serve, ask, status: int) -> None:
    exchange = await ask(serve(Raises(HTTPException(status)))).run()

    assert (exchange.status, exchange.data) == (status, b"")


async def test_an_engine_that_has_no_room_is_not_the_models_failure(serve, ask) -> None:
    error = RequestRefused("the engine is full", retry_after=2.5)

    exchange = await ask(serve(Raises(error))).run()

    assert said(exchange) == (429, "the engine is full", "600")
    assert exchange.headers_received["retry-after"] == "3"


async def test_a_cancelled_error_that_nobody_sent_is_the_models_failure(serve, ask) -> None:
    app = serve(Raises(asyncio.CancelledError()))

    exchange = await ask(app).run()

    assert said(exchange) == (500, FIXED, "600")
    assert app.runner.statistics().violations == 0
    [ending] = app.runner.statistics().ended
    assert ending.outcome == "failed"


@WAYS
@pytest.mark.parametrize(
    ("error", "word"),
    [
        (SystemExit(3), "it called sys.exit(3)"),
        (KeyboardInterrupt(), "it raised KeyboardInterrupt"),
        (BaseException(), "it raised BaseException"),
    ],
)
async def test_a_model_that_wants_to_end_the_process_fails_instead(  # noqa: PLR0913, PLR0917 - a table's columns
    serve, ask, kind, accept, error, word, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve(kind(error))

    exchange = await ask(app, accept=accept).run()

    assert said(exchange) == (500, FIXED, "600")
    assert word in caplog.text
    [ending] = app.runner.statistics().ended
    assert ending.outcome == "failed"


async def test_the_log_has_the_models_own_lines_and_none_of_ours(
    serve, ask, caplog: pytest.LogCaptureFixture
) -> None:
    class Exits:
        async def predict(self) -> None:
            sys.exit(3)

    await ask(serve(Exits)).run()

    [record] = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is SystemExit
    assert [frame.name for frame in traceback.extract_tb(record.exc_info[2])] == ["predict"]


async def test_a_stage_after_a_stream_is_refused_when_it_comes_to_that(
    serve, ask, caplog: pytest.LogCaptureFixture
) -> None:
    class Streams:
        async def predict(self):
            yield "a"

        async def postprocess(self, result):
            return result

    exchange = await ask(serve(Streams)).run()

    assert said(exchange) == (500, FIXED, "600")
    assert "`postprocess` cannot take" in caplog.text


# -- after it ----------------------------------------------------------------------------------


async def test_an_error_in_a_raw_stream_ends_it_uncleanly(serve, ask) -> None:
    app = serve(YieldsAndRaises(RuntimeError("secret"), "a"))

    exchange = await ask(app).run()

    assert (exchange.status, exchange.data, exchange.completed) == (200, b"a", False)
    [ending] = app.runner.statistics().ended
    assert ending.outcome == "failed"


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (RuntimeError("secret"), "RuntimeError: secret"),
        (SystemExit("secret"), "it called sys.exit('secret')"),
        (KeyboardInterrupt(), "it raised KeyboardInterrupt"),
        (asyncio.CancelledError(), "it let a CancelledError out that nobody had sent"),
    ],
    ids=repr,
)
async def test_an_error_in_an_event_stream_is_its_last_event(
    serve, ask, error, logged, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve(YieldsAndRaises(error, "a"))

    exchange = await ask(app, accept=EVENTS).run()

    assert [event.event for event in exchange.events] == ["message", "error"]
    assert exchange.events[-1].json() == {
        "error": {
            "type": "internal_error",
            "message": "the stream broke off; see the server's log",
        }
    }
    assert "secret" not in exchange.text
    assert caplog.text.count(logged) == 1
    assert exchange.completed
    [ending] = app.runner.statistics().ended
    assert ending.outcome == "failed"


async def test_an_http_exception_in_an_event_stream_is_told_by_its_last_event(serve, ask) -> None:
    app = serve(YieldsAndRaises(HTTPException(402, "pay first"), "a"))

    exchange = await ask(app, accept=EVENTS).run()

    assert exchange.events[-1].json() == {
        "error": {"type": "http_error", "message": "pay first", "status": 402}
    }


async def test_an_error_in_a_joined_stream_has_a_status_however_late_it_comes(serve, ask) -> None:
    app = serve(YieldsAndRaises(HTTPException(418, "late"), "a", "b"))

    exchange = await ask(app, accept=JOINED).run()

    assert said(exchange) == (418, "late", "600")


@pytest.mark.parametrize("chunk", [{"a": 1}, 7, None, ["x"]])
async def test_a_chunk_that_raw_streams_have_no_form_for_is_named(
    serve, ask, chunk, caplog: pytest.LogCaptureFixture
) -> None:
    class Yields:
        def __init__(self, *chunks: object) -> None:
            self.chunks = chunks

        async def predict(self):
            for each in self.chunks:
                yield each

    first = await ask(serve(Yields(chunk))).run()
    later = await ask(serve(Yields("a", chunk))).run()

    assert said(first) == (500, FIXED, "600")
    assert (later.status, later.data, later.completed) == (200, b"a", False)
    assert caplog.text.count(f"its source yielded {type(chunk).__name__}") == 2


async def test_a_chunk_that_events_have_no_form_for_is_named(
    serve, ask, caplog: pytest.LogCaptureFixture
) -> None:
    class Yields:
        async def predict(self):
            yield {1, 2}

    exchange = await ask(serve(Yields), accept=EVENTS).run()

    assert said(exchange) == (500, FIXED, "600")
    assert "yielded set, which has no JSON form" in caplog.text


# -- the log -----------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [RAW, EVENTS])
@pytest.mark.parametrize("chunks", [(), ("a",)], ids=["before", "after"])
async def test_the_log_has_the_models_own_traceback_once(
    serve, ask, accept, chunks, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = ask(serve(YieldsAndRaises(RuntimeError("secret"), *chunks)), accept=accept)

    await exchange.run()

    [record] = [r for r in caplog.records if r.exc_info]
    assert record.levelno == logging.ERROR
    assert "secret" in caplog.text
    assert "raise self.error" in caplog.text


async def test_the_traceback_begins_with_the_models_own_line(
    serve, ask, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(serve(RaisesInThread(RuntimeError("secret")))).run()

    assert "streamkit/" not in caplog.text.split("Traceback")[1]


async def test_an_http_exception_is_no_failure_and_says_where_it_came_from(
    serve, ask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    await ask(serve(Raises(HTTPException(418, "a teapot")))).run()

    assert "the model answered 418 in" in caplog.text
    assert __file__ in caplog.text
    assert "Traceback" not in caplog.text


# -- refused -----------------------------------------------------------------------------------


class Sleeps:
    async def predict(self):
        await anyio.sleep(10)
        return "slept"


async def test_a_model_that_is_not_loaded_is_not_ready(serve, ask) -> None:
    app = serve(Sleeps, loaded=False)

    exchange = await ask(app, body=b"no json").run()

    assert said(exchange) == (503, "Model with name model is not ready.", "600")
    assert exchange.headers_received["retry-after"] == "1"
    assert dict(app.runner.statistics().refused) == {"unavailable": 1}


async def test_one_more_than_may_wait_is_refused(serve, ask) -> None:
    app = serve(Sleeps, max_queued=0)

    async with ask(app):
        await anyio.sleep(1)
        exchange = await ask(app).run()

    status, text, code = said(exchange)
    assert (status, code) == (429, "600")
    assert str(text).startswith("full: 1 requests in flight, 1 slots and 0 places to wait")
    assert int(exchange.headers_received["retry-after"]) >= 1


async def test_who_waits_too_long_for_a_slot_is_refused(serve, ask) -> None:
    app = serve(Sleeps, max_wait=2)

    async with ask(app):
        await anyio.sleep(1)
        exchange = await ask(app).run()

    status, text, code = said(exchange)
    assert (status, code) == (503, "600")
    assert "no slot became free within 2 s" in str(text)
    assert "retry-after" in exchange.headers_received


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/chat/completions", "chat_completions"),
        ("/v1/completions", "completions"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/messages", "messages"),
        ("/v1/responses", "responses"),
    ],
)
async def test_a_route_whose_method_the_model_lacks_is_404(serve, ask, path, method) -> None:
    exchange = await ask(serve(Sleeps), {}, path=path).run()

    assert said(exchange) == (404, f"`{method}` must only be called if model has it.", "700")


async def test_paths_that_nobody_knows_are_answered_as_everywhere_here(serve, ask) -> None:
    app = serve(Sleeps)

    unknown = await ask(app, path="/a/b/c").run()
    wrong = await ask(app, path="/predict", method="GET").run()

    assert (unknown.status, json.loads(unknown.data)["error"]["type"]) == (404, "not_found")
    assert (wrong.status, wrong.headers_received["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/models/mine/predict", "did you mean /v1/models/{model_name}:predict?"),
        ("/chat/completions", "did you mean /v1/chat/completions?"),
        ("/" + "x" * 60_000, "GET /v1/engine shows what is served"),
        ("/v1/websocket", "this path is a websocket's, and takes no other request"),
    ],
)
async def test_who_mistypes_a_path_is_told_the_nearest(serve, ask, path: str, says: str) -> None:
    exchange = await ask(serve(Sleeps), path=path).run()

    assert exchange.status == 404
    assert json.loads(exchange.data)["error"]["message"].endswith(says)
