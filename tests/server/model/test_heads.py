"""A head that no server can send is the model's failure, told as such, and never a dead line."""

import json

import fastapi
import pytest
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from streamkit.testing import Exchange


class Gives:
    def __init__(self, make) -> None:
        self.make = make

    async def predict(self):
        return self.make()


class Raises:
    def __init__(self, status, headers=None) -> None:
        self.error = fastapi.HTTPException(status, "no", headers)

    async def predict(self):
        raise self.error


def told(exchange: Exchange) -> str:
    """The text of an error that says what cannot be sent; its code is the server's."""
    assert exchange.completed
    assert exchange.status == 500
    assert exchange.headers_received["x-baseten-error-code"] == "500"
    return json.loads(exchange.data)["error"]


NO_STATUS = [0, 99, 100, 101, 600, 1000, True, 400.5, "400", None]


@pytest.mark.parametrize("status", NO_STATUS)
async def test_a_status_that_is_none_is_told(serve, ask, status) -> None:
    app = serve(Raises(status))

    assert "Unhandled exception: " in told(await ask(app).run())
    [ending] = app.runner.statistics().ended
    assert ending.outcome == "failed"


HEADERS = {
    "a line break": ({"x-a": "1\r\nx-b: 2"}, "control character"),
    "a null": ({"x-a": "\0"}, "control character"),
    "a space in its name": ({"x a": "1"}, "no name"),
    "no name": ({"": "1"}, "no name"),
    "no latin": ({"x-a": "€"}, "UnicodeEncodeError"),
    "a number": ({"x-a": 5}, "AttributeError"),
    "no mapping": ([("x-a", "1")], "AttributeError"),
}


@pytest.mark.parametrize(("headers", "text"), HEADERS.values(), ids=HEADERS)
async def test_a_header_that_is_none_is_told(serve, ask, headers, text) -> None:
    assert text in told(await ask(serve(Raises(409, headers))).run())


@pytest.mark.parametrize("kind", [PlainTextResponse, StreamingResponse])
async def test_a_response_of_the_models_is_looked_at_too(serve, ask, kind) -> None:
    app = serve(Gives(lambda: kind(iter(["x"]) if kind is StreamingResponse else "x", 1000)))
    assert "1000 is no status" in told(await ask(app).run())

    broken = {"x-a": "1\n2"}
    app = serve(Gives(lambda: kind(iter(["x"]) if kind is StreamingResponse else "x", 200, broken)))
    assert "the header x-a" in told(await ask(app).run())


@pytest.mark.parametrize("kind", [PlainTextResponse, StreamingResponse])
@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_goes_out_without_one(serve, ask, status, kind) -> None:
    app = serve(Gives(lambda: kind(iter("ab") if kind is StreamingResponse else "ab", status)))

    exchange = await ask(app).run()

    assert (exchange.status, exchange.data, exchange.completed) == (status, b"", True)
    assert "content-length" not in exchange.headers_received
    [ending] = app.runner.statistics().ended
    assert ending.outcome == "finished"


async def test_the_slot_is_free_after_it(serve, ask) -> None:
    app = serve(Gives(lambda: StreamingResponse(iter(["x"]), 1000)), predict_concurrency=1)

    told(await ask(app).run())

    assert app.runner.statistics().running == 0
    told(await ask(app).run())


async def test_what_an_exception_says_of_another_body_is_not_said_of_ours(serve, ask) -> None:
    upstream = {"Content-Length": "5000", "content-encoding": "gzip", "Content-Type": "text/html"}

    exchange = await ask(serve(Raises(502, {**upstream, "x-kettle": "on"}))).run()

    assert json.loads(exchange.data) == {"error": "no"}
    assert exchange.headers_received["content-length"] == str(len(exchange.data))
    assert exchange.headers_received["content-type"] == "application/json"
    assert "content-encoding" not in exchange.headers_received
    assert exchange.headers_received["x-kettle"] == "on"


async def test_there_is_one_id_and_it_is_ours(serve, ask) -> None:
    app = serve(Gives(lambda: PlainTextResponse("x", headers={"X-Request-Id": "upstream"})))

    exchange = await ask(app, headers={"x-request-id": "mine"}).run()

    head = exchange.sent[0].message["headers"]
    assert [value for name, value in head if name == b"x-request-id"] == [b"mine"]


async def test_a_response_that_sends_nothing_is_the_models_failure(serve, ask) -> None:
    class Silent(Response):
        async def __call__(self, scope, receive, send) -> None: ...

    exchange = await ask(serve(Gives(Silent))).run()

    assert exchange.status == 500
    assert exchange.headers_received["x-baseten-error-code"] == "600"
