"""OpenAI's routes of a model class: values are framed, text is the model's own framing."""

import json

import anyio
import pytest
from pydantic import BaseModel

from streamkit.testing import Exchange

CHAT = "/v1/chat/completions"
OCTETS = "application/octet-stream"


class Chunk(BaseModel):
    n: int


class Chats:
    def __init__(self, *chunks: object, error: BaseException | None = None) -> None:
        self.chunks = chunks
        self.error = error

    async def predict(self, inputs):
        return inputs

    async def chat_completions(self, inputs):
        async for chunk in self._stream():
            yield chunk

    messages = responses = chat_completions

    async def _stream(self):
        for chunk in self.chunks:
            await anyio.sleep(0.01)
            yield chunk
        if self.error:
            raise self.error


async def chat(ask, app, path: str = CHAT, **options) -> Exchange:
    return await ask(app, {}, path=path, **options).run()


@pytest.mark.parametrize("accept", [None, "text/event-stream", "*/*"])
async def test_values_are_framed_as_openais_clients_expect(serve, ask, accept) -> None:
    exchange = await chat(ask, serve(Chats({"a": "é"}, Chunk(n=1))), accept=accept)

    assert exchange.text == 'data: {"a": "\\u00e9"}\n\ndata: {"n":1}\n\ndata: [DONE]\n\n'
    assert exchange.headers_received["content-type"] == "text/event-stream; charset=utf-8"
    assert exchange.completed


@pytest.mark.parametrize(
    ("accept", "kind"),
    [(None, OCTETS), ("text/event-stream", "text/event-stream; charset=utf-8")],
)
async def test_text_goes_out_as_the_model_framed_it(serve, ask, accept, kind) -> None:
    app = serve(Chats('data: {"a":1}\n\n', b"data: [DONE]\n\n"))

    exchange = await chat(ask, app, accept=accept)

    assert exchange.text == 'data: {"a":1}\n\ndata: [DONE]\n\n'
    assert exchange.headers_received["content-type"] == kind


async def test_raw_text_has_the_headers_that_it_has_on_truss(serve, ask) -> None:
    exchange = await chat(ask, serve(Chats("a")))

    assert set(exchange.headers_received) == {"content-type", "x-request-id"}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [(None, OCTETS), ("text/event-stream", "text/event-stream; charset=utf-8")],
)
async def test_a_stream_without_a_chunk_is_raw_and_empty(serve, ask, accept, kind) -> None:
    exchange = await chat(ask, serve(Chats()), accept=accept)

    assert (exchange.status, exchange.data, exchange.completed) == (200, b"", True)
    assert exchange.headers_received["content-type"] == kind


async def test_events_that_clients_know_by_name_have_their_names(serve, ask) -> None:
    chunks = [{"type": "message_start", "n": 1}, {"n": 2}, {"type": "no\ndata: {}", "n": 3}]

    for path in ("/v1/messages", "/v1/responses"):
        exchange = await chat(ask, serve(Chats(*chunks)), path)
        assert [event.event for event in exchange.events] == ["message_start", "message", "message"]
        assert [event.json()["n"] for event in exchange.events] == [1, 2, 3]


async def test_openais_client_streams_although_it_accepts_json_alone(serve, ask) -> None:
    headers = {"accept": "application/json", "user-agent": "OpenAI/Python 1.61.0"}

    exchange = await chat(ask, serve(Chats({"a": 1})), headers=headers)

    assert exchange.text == 'data: {"a": 1}\n\ndata: [DONE]\n\n'


async def test_any_other_client_that_accepts_json_alone_gets_one_text(serve, ask) -> None:
    exchange = await chat(ask, serve(Chats("a", "b")), accept="application/json")

    assert exchange.text == '"ab"'


@pytest.mark.parametrize("error", [RuntimeError("secret"), SystemExit("secret")], ids=repr)
async def test_a_framed_stream_that_breaks_says_so_as_openais_does(serve, ask, error) -> None:
    app = serve(Chats({"a": 1}, error=error))

    exchange = await chat(ask, app)

    _, last = exchange.events
    assert last.json()["error"]["type"] == last.json()["error"]["code"] == "internal_error"
    assert "secret" not in exchange.text
    assert "[DONE]" not in exchange.text
    assert exchange.completed
    [ending] = app.runner.statistics().ended
    assert ending.outcome == "failed"


async def test_a_raw_stream_that_breaks_ends_uncleanly(serve, ask) -> None:
    exchange = await chat(ask, serve(Chats("a", error=RuntimeError())), accept="text/event-stream")

    assert (exchange.status, exchange.text, exchange.completed) == (200, "a", False)


async def test_a_cancel_is_told_in_the_framing_there_is(serve, ask) -> None:
    app = serve(Chats({"a": 1}, *[{"b": 1}] * 500))

    async with ask(app, {}, path=CHAT, headers={"x-request-id": "r"}) as exchange:
        await exchange.wait_chunks(1)
        app.runner.cancel("r")

    assert json.loads(exchange.events[-1].data)["error"]["code"] == "requested"


@pytest.mark.parametrize("framed", [True, False])
async def test_only_what_we_frame_is_filled_with_comments(serve, ask, framed) -> None:
    class Slow:
        async def predict(self, inputs):
            return inputs

        async def chat_completions(self, inputs):
            yield {"a": 1} if framed else "a"
            await anyio.sleep(2.5)
            yield {"b": 1} if framed else "b"

    exchange = await chat(ask, serve(Slow, heartbeat=1.0), accept="text/event-stream")

    assert exchange.data.count(b": \r\n\r\n") == (2 if framed else 0)


async def test_an_error_before_the_first_chunk_has_its_status(serve, ask) -> None:
    exchange = await chat(ask, serve(Chats(error=RuntimeError())), accept="text/event-stream")

    assert exchange.status == 500
    assert exchange.headers_received["x-baseten-error-code"] == "600"


async def test_a_value_is_json_as_on_predict(serve, ask) -> None:
    class Whole:
        async def completions(self, inputs):
            return {"choices": [inputs]}

    exchange = await ask(serve(Whole), 1, path="/v1/completions").run()

    assert exchange.text == '{"choices": [1]}'


async def test_these_routes_take_no_slot(serve, ask) -> None:
    class Slow:
        async def predict(self, inputs):
            await anyio.sleep(10)

        async def completions(self, inputs):
            return "at once"

    app = serve(Slow)
    async with ask(app, 1) as slow:
        await anyio.sleep(1)
        quick = await ask(app, 1, path="/v1/completions").run()

    assert quick.ended_at == pytest.approx(1)
    assert slow.ended_at == pytest.approx(10)


async def test_these_routes_take_a_slot_where_it_is_set_so(serve, ask) -> None:
    class Slow:
        async def predict(self, inputs):
            await anyio.sleep(10)

        async def completions(self, inputs):
            return "later"

    app = serve(Slow, slots_cover="all")
    async with ask(app, 1):
        await anyio.sleep(1)
        later = await ask(app, 1, path="/v1/completions").run()

    assert later.ended_at == pytest.approx(10)
