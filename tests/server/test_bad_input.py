"""Whatever a client sends, the answer is a clear error with the status that fits."""

import json
from collections.abc import Callable

import anyio
import pytest

from streamkit.testing import Exchange

Make = Callable[..., Exchange]


def problem(exchange: Exchange) -> dict:
    assert exchange.headers_received["content-type"] == "application/json"
    error = json.loads(exchange.data)["error"]
    assert set(error) == {"message", "type", "code"}
    return error


def post(app, body: bytes | list[bytes], **headers: str) -> Exchange:
    return Exchange(
        app, path="/generate", body=body, headers={"content-type": "application/json", **headers}
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b"", "the body is not valid JSON", id="nothing"),
        pytest.param(b"{", "the body is not valid JSON", id="half an object"),
        pytest.param(b"prompt=hello", "the body is not valid JSON", id="a form"),
        pytest.param(b'{"prompt": "a"} {}', "the body is not valid JSON", id="two objects"),
        pytest.param(b"\xff\xfe{", "the body is not valid JSON", id="UTF-16"),
        pytest.param(b'{"prompt": "\xff"}', "the body is not valid JSON", id="not UTF-8"),
        pytest.param(b'{"prompt": "\\ud800"}', "the body is not valid JSON", id="half a pair"),
        pytest.param(b"[" * 100_000, "the body is not valid JSON", id="deep nesting"),
        pytest.param(b"[1]", "the body: input should be an object", id="a list"),
        pytest.param(b"null", "the body: input should be an object", id="null"),
        pytest.param(b"{}", "prompt: field required", id="no prompt"),
        pytest.param(b'{"prompt": 1}', "prompt: input should be a valid string", id="a number"),
        pytest.param(b'{"prompt": null}', "prompt: input should be a valid string", id="no text"),
        pytest.param(b'{"prompt": ["a"]}', "prompt: input should be a valid string", id="texts"),
        pytest.param(b'{"prompt": ""}', "prompt: string should have at least 1", id="empty"),
        pytest.param(
            b'{"prompt": "a", "max_tokens": 0}',
            "max_tokens: input should be greater than or equal to 1",
            id="zero tokens",
        ),
        pytest.param(
            b'{"prompt": "a", "max_tokens": -5}',
            "max_tokens: input should be greater than or equal to 1",
            id="negative tokens",
        ),
        pytest.param(
            b'{"prompt": "a", "max_tokens": 1000001}',
            "max_tokens: input should be less than or equal to 1000000",
            id="absurdly many tokens",
        ),
        pytest.param(
            b'{"prompt": "a", "max_tokens": ' + b"9" * 100 + b"}",
            "max_tokens: input should be less than or equal to 1000000",
            id="a huge integer",
        ),
        pytest.param(
            b'{"prompt": "a", "max_tokens": ' + b"9" * 10_000 + b"}",
            "the body is not valid JSON: number out of range",
            id="an integer beyond all bounds",
        ),
        pytest.param(
            b'{"prompt": "a", "max_tokens": 1.5}',
            "max_tokens: input should be a valid integer",
            id="a fraction",
        ),
        pytest.param(
            b'{"prompt": "a", "max_tokens": "5"}',
            "max_tokens: input should be a valid integer",
            id="a number as text",
        ),
        pytest.param(
            b'{"prompt": "a", "max_tokens": true}',
            "max_tokens: input should be a valid integer",
            id="a boolean for a number",
        ),
        pytest.param(
            b'{"prompt": "a", "max_tokens": NaN}',
            "max_tokens: input should be a valid integer",
            id="NaN",
        ),
        pytest.param(
            b'{"prompt": "a", "max_tokens": 1e999}',
            "max_tokens: input should be a valid integer",
            id="infinity",
        ),
        pytest.param(
            b'{"prompt": "a", "stream": "yes"}',
            "stream: input should be a valid boolean",
            id="a text for a boolean",
        ),
        pytest.param(b'{"prompt": "a", "n": 0}', "n: input should be greater", id="no choices"),
        pytest.param(b'{"prompt": "a", "n": 129}', "n: input should be less", id="129 choices"),
        pytest.param(
            b'{"prompt": "a", "n": 2, "stream": true}', "n: must be 1", id="a stream of choices"
        ),
        pytest.param(
            b'{"prompt": "a", "temperature": 1, "top_p": 1}',
            "temperature: there is no such field; top_p: there is no such field",
            id="unknown fields",
        ),
        pytest.param(
            b'{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1}', "; and 3 more", id="many mistakes"
        ),
        pytest.param(
            b'{"prompt": "a b", "max_tokens": 100}',
            "prompt (2 tokens) and answer (max_tokens 100) need 102 tokens, the engine holds 50",
            id="more than the engine holds",
        ),
    ],
)
async def test_a_bad_body_is_400_and_names_the_field(make_app, body: bytes, said: str) -> None:
    app = make_app({"kv_tokens": 50})

    exchange = await post(app, body).run()

    error = problem(exchange)
    assert exchange.status == 400
    assert error["type"] == error["code"] == "invalid_request_error"
    assert said in error["message"]
    assert len(error["message"]) < 600
    assert app.runner.statistics().refused == {"invalid": 1}
    assert app.runner.engine.statistics().steps == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"content-type": "application/json; charset=utf-8"}, 200, id="with charset"),
        pytest.param({"content-type": "application/vnd.api+json"}, 200, id="a kind of JSON"),
        pytest.param({"content-type": "APPLICATION/JSON"}, 200, id="in capitals"),
        pytest.param({}, 200, id="not declared"),
        pytest.param({"content-type": "text/plain"}, 415, id="text"),
        pytest.param({"content-type": "application/x-www-form-urlencoded"}, 415, id="a form"),
        pytest.param({"content-type": ""}, 415, id="empty"),
        pytest.param({"content-type": "application/json; charset=latin-1"}, 415, id="Latin-1"),
        pytest.param({"content-encoding": "gzip"}, 415, id="compressed"),
    ],
)
async def test_what_is_declared_as_something_else_is_415(
    make_app, headers: dict[str, str], status: int
) -> None:
    app = make_app()
    body = b'{"prompt": "a", "max_tokens": 1}'

    exchange = await Exchange(app, path="/generate", body=body, headers=headers).run()

    assert exchange.status == status
    if status == 415:
        assert problem(exchange)["type"] == "unsupported_media_type"


async def test_a_body_that_is_declared_too_long_is_not_read(make_app) -> None:
    app = make_app(max_body_bytes=100)

    exchange = await post(app, b"x" * 101, **{"content-length": "101"}).run()

    assert exchange.status == 413
    assert problem(exchange)["message"] == "the body is longer than 100 bytes"
    assert exchange.headers_received["connection"] == "close"


async def test_a_body_of_unknown_length_is_read_to_the_limit_and_no_further(make_app) -> None:
    app = make_app(max_body_bytes=100_000)
    pieces = [b"x" * 50_000] * 1000

    exchange = await post(app, pieces).run()

    assert exchange.status == 413
    assert len(exchange.received) < 30  # three that were needed, and a bounded read-ahead


async def test_a_body_of_exactly_the_limit_is_read(make_app) -> None:
    body = b'{"prompt": "a", "max_tokens": 1}'
    app = make_app(max_body_bytes=len(body))

    assert (await post(app, body).run()).status == 200


async def test_a_client_that_sends_half_a_body_and_waits_is_told(make_app) -> None:
    app = make_app(read_timeout=3.0)
    exchange = Exchange(
        app,
        path="/generate",
        body=[b'{"prompt"', b": "],
        leaves_before_body_ends=True,
        leaves_after_seconds=100,
    )

    await exchange.run()

    assert exchange.ended_at == pytest.approx(3.0)
    assert exchange.status == 408
    assert problem(exchange)["message"] == "the body did not arrive within 3 s; 11 bytes of it did"
    assert exchange.headers_received["connection"] == "close"
    assert len(app.runner.in_flight) == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/generate", 405, "POST"),
        ("HEAD", "/generate", 405, "POST"),
        ("OPTIONS", "/generate", 405, "POST"),
        ("POST", "/metrics", 405, "GET, HEAD"),
        ("GET", "/v1/requests/a/cancel", 405, "POST"),
        ("GET", "/", 404, None),
        ("GET", "/health/live/", 404, None),
        ("POST", "/generate/", 404, None),
        ("GET", "/v1/requests/a/b", 404, None),
        ("GET", "/v1/requests/nobody", 404, None),
        ("POST", "/v1/requests/nobody/cancel", 404, None),
    ],
)
async def test_a_wrong_path_or_method_is_named(
    make_app, method: str, path: str, status: int, allow: str | None
) -> None:
    exchange = await Exchange(make_app(), method=method, path=path).run()

    assert exchange.status == status
    assert problem(exchange)["type"] == ("not_found" if status == 404 else "method_not_allowed")
    allowed = exchange.headers_received.get("allow")
    assert (allowed and ", ".join(sorted(allowed.split(", ")))) == allow


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "9999999999", "", "٣"])
async def test_a_bad_limit_is_400(make_app, limit: str) -> None:
    exchange = await Exchange(make_app(), method="GET", path=f"/v1/requests?limit={limit}").run()

    assert exchange.status == 400
    assert "limit" in problem(exchange)["message"]


async def test_who_comes_when_it_is_full_is_429_and_told_when_to_come_back(
    make_app, generate: Make
) -> None:
    app = make_app({"slots": 1}, max_queued=0)

    async with generate(app, max_tokens=50):
        await anyio.sleep(0.1)
        refused = await generate(app).run()

    assert refused.status == 429
    assert int(refused.headers_received["retry-after"]) >= 1
    error = problem(refused)
    assert (error["type"], error["code"]) == ("refused", "queue_full")
    assert "1 requests in flight, 1 slots" in error["message"]


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_without_room_is_429_too(
    make_app, generate: Make, stream: bool, events: bool
) -> None:
    app = make_app({"slots": 1, "max_queued": 0})

    async with generate(app, max_tokens=50):
        await anyio.sleep(0.1)
        refused = await generate(app, stream=stream, events=events).run()

    assert refused.status == 429
    assert problem(refused)["code"] == "queue_full"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_dies_is_500_without_its_innards(
    make_app, generate: Make, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app({"lie": "crash:1"})

    exchange = await generate(app, max_tokens=50, stream=stream).run()

    assert exchange.status == 500
    assert problem(exchange) == {
        "message": "the engine failed",
        "type": "engine_failed",
        "code": "engine_failed",
    }
    assert "SimulatedCrash" in caplog.text
    refused = await generate(app).run()
    assert refused.status == 503
    assert problem(refused)["message"] == "not ready: engine fake has failed"


async def test_an_engine_that_dies_in_a_stream_of_events_ends_it_with_an_error(
    make_app, generate: Make
) -> None:
    app = make_app({"lie": "crash:3"})

    exchange = await generate(app, max_tokens=50, stream=True, events=True).run()

    assert [event.event for event in exchange.events] == ["message", "message", "error"]
    assert exchange.events[-1].json() == {
        "error": {"type": "engine_failed", "message": "the engine failed"}
    }
    assert app.runner.statistics().failed == 1
    assert app.runner.statistics().violations == 0


async def test_an_engine_that_dies_in_a_raw_stream_cuts_it(make_app, generate: Make) -> None:
    app = make_app({"lie": "crash:3"})

    exchange = await generate(app, max_tokens=50, stream=True).run()

    assert (exchange.status, len(exchange.chunks)) == (200, 2)
    assert not exchange.completed


async def test_a_mistake_of_ours_is_500_without_its_innards(
    make_app, generate: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()

    def broken(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("a secret")

    app.runner.engine.open = broken
    exchange = await generate(app).run()

    assert exchange.status == 500
    assert problem(exchange)["type"] == "internal_error"
    assert "secret" not in exchange.text
    assert "ZeroDivisionError: a secret" in caplog.text
    totals = app.runner.statistics()
    assert (totals.failed, totals.refused, totals.violations) == (1, {}, 0)
    request_id = exchange.headers_received["x-request-id"]
    account = await Exchange(app, method="GET", path=f"/v1/requests/{request_id}").run()
    assert "secret" not in account.text
    assert json.loads(account.data)["detail"] == "ZeroDivisionError"
