"""`POST /generate` answers as the contract says, in each of its three forms."""

import json
from collections.abc import Callable

import anyio
import pytest

from streamkit.testing import Exchange, Lifespan

STEP = 0.02
WORDS = ["high", " low", " hard", " call", " list"]
Make = Callable[..., Exchange]


async def test_an_answer_that_is_no_stream_is_one_json_object(make_app, generate: Make) -> None:
    app = make_app()

    exchange = await generate(app, max_tokens=5, headers={"x-request-id": "mine"}).run()

    assert exchange.status == 200
    assert exchange.headers_received["content-type"] == "application/json"
    assert json.loads(exchange.data) == {
        "id": "mine",
        "text": "".join(WORDS),
        "finish_reason": "length",
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
    }
    assert exchange.ended_at == pytest.approx(5 * STEP)


async def test_a_stream_for_who_accepts_events_is_one_event_a_chunk(
    make_app, generate: Make
) -> None:
    app = make_app()

    exchange = await generate(app, events=True, stream=True, max_tokens=5).run()

    assert exchange.status == 200
    assert exchange.headers_received["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, last = exchange.events
    assert [(event.event, event.data) for event in chunks] == [("message", w) for w in WORDS]
    assert last.event == "done"
    assert last.json() == {
        "id": exchange.headers_received["x-request-id"],
        "finish_reason": "length",
        "tokens": 5,
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
    }
    assert [chunk.at for chunk in exchange.chunks[:5]] == [
        pytest.approx(n * STEP) for n in range(1, 6)
    ]


async def test_a_stream_for_anybody_else_is_raw_chunks(make_app, generate: Make) -> None:
    app = make_app()

    exchange = await generate(app, stream=True, max_tokens=5).run()

    assert exchange.headers_received["content-type"] == "text/plain; charset=utf-8"
    assert [chunk.data.decode() for chunk in exchange.chunks] == WORDS
    assert exchange.completed


@pytest.mark.parametrize(
    ("accept", "is_event_stream"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; q=0.9", True),
        ("application/json, text/event-stream", True),
        ("text/event-stream;q=0", False),
        ("*/*", False),
        ("text/event-stream-of-mine", False),
    ],
)
async def test_who_accepts_events_is_read_from_the_header(
    make_app, generate: Make, accept: str, is_event_stream: bool
) -> None:
    app = make_app()

    exchange = await generate(app, stream=True, max_tokens=1, headers={"accept": accept}).run()

    kind = exchange.headers_received["content-type"]
    assert kind.startswith("text/event-stream") is is_event_stream


async def test_a_request_that_names_no_limit_gets_the_engines_default(
    make_app, generate: Make
) -> None:
    app = make_app({"max_tokens": 7})

    exchange = await generate(app).run()

    assert json.loads(exchange.data)["usage"]["completion_tokens"] == 7


async def test_several_choices_come_side_by_side(make_app, generate: Make) -> None:
    app = make_app()

    exchange = await generate(app, max_tokens=5, n=2).run()

    answer = json.loads(exchange.data)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert answer["text"] == answer["choices"][0]["text"] != answer["choices"][1]["text"]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 10}


async def test_every_answer_carries_an_id(make_app, generate: Make) -> None:
    app = make_app()
    ids = set()
    for method, path in [
        ("GET", "/health/live"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
        ("DELETE", "/generate"),
        ("POST", "/generate"),
    ]:
        exchange = await Exchange(app, method=method, path=path).run()
        ids.add(exchange.headers_received["x-request-id"])

    assert len(ids) == 5


async def test_the_clients_id_is_kept_unless_it_is_in_flight(make_app, generate: Make) -> None:
    app = make_app()
    mine = {"x-request-id": "mine"}

    async with generate(app, max_tokens=10, headers=mine) as first:
        await anyio.sleep(STEP)
        second = await generate(app, max_tokens=1, headers=mine).run()
    third = await generate(app, max_tokens=1, headers=mine).run()

    assert first.headers_received["x-request-id"] == "mine"
    assert second.headers_received["x-request-id"] != "mine"
    assert json.loads(second.data)["id"] == second.headers_received["x-request-id"]
    assert third.headers_received["x-request-id"] == "mine"


@pytest.mark.parametrize("proposed", ["", "a b", "é", "x" * 129, 'a"b', "a/b"])
async def test_an_id_that_is_not_valid_is_replaced(make_app, generate: Make, proposed: str) -> None:
    app = make_app()

    exchange = await generate(app, max_tokens=1, headers={"x-request-id": proposed}).run()

    assert exchange.status == 200
    assert exchange.headers_received["x-request-id"] != proposed


async def test_silence_is_filled_with_comments(make_app, generate: Make) -> None:
    app = make_app({"prefill_tokens_per_step": 1}, heartbeat=1.0)

    exchange = await generate(app, events=True, stream=True, prompt="w " * 120, max_tokens=1).run()

    assert exchange.data.count(b": \r\n\r\n") == 2  # 2.4 s of prefill
    assert exchange.events[-1].event == "done"


async def test_heartbeats_can_be_switched_off(make_app, generate: Make) -> None:
    app = make_app({"prefill_tokens_per_step": 1}, heartbeat="off")

    exchange = await generate(app, events=True, stream=True, prompt="w " * 2000, max_tokens=1).run()

    assert b": \r\n" not in exchange.data.replace(b"data: ", b"")


async def test_the_lifespan_closes_the_engine(make_app, generate: Make) -> None:
    app = make_app()

    async with Lifespan(app):
        await generate(app, max_tokens=1).run()

    refused = await generate(app, max_tokens=1).run()
    assert refused.status == 503
    assert app.runner.engine.statistics().running == 0
