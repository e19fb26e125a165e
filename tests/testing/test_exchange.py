"""The in-memory exchange: the client's behaviour, the servers' manners, and the records."""

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from streamkit.testing import Exchange, Lifespan, ServerEvent, wait_all_tasks_blocked
from streamkit.testing._connection import ASGIApp, Message, Receive, Send

HEAD: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"Content-Type", b"text/plain")],
}
DISCONNECT = {"type": "http.disconnect"}


def part(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def count_to_five(scope: Message, receive: Receive, send: Send) -> None:
    """One number each second; does not look at its client."""
    await send(HEAD)
    for number in range(5):
        await anyio.sleep(1)
        await send(part(b"%d" % number))
    await send(part(b"", more=False))


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    await send(HEAD)
    await send(part(await request.body(), more=False))


async def read(receive: Receive, times: list[float] | None = None) -> Message:
    message = await receive()
    if times is not None:
        times.append(anyio.current_time())
    return message


async def test_it_records_what_reached_the_client_and_when():
    exchange = await Exchange(count_to_five, path="/count?to=5").run()

    assert exchange.status == 200
    assert exchange.headers_received == {"content-type": "text/plain"}
    assert [(chunk.at, chunk.data) for chunk in exchange.chunks] == [
        (1, b"0"),
        (2, b"1"),
        (3, b"2"),
        (4, b"3"),
        (5, b"4"),
    ]
    assert exchange.completed
    assert exchange.text == "01234"
    assert (exchange.started_at, exchange.ended_at, exchange.left_at) == (0, 5, None)
    assert [sent.at for sent in exchange.sent] == [0, 1, 2, 3, 4, 5, 5]
    assert repr(exchange) == (
        "<Exchange POST /count?to=5 on uvicorn: 200, 5 chunks, complete, app returned>"
    )


async def test_the_app_gets_the_request_that_was_given():
    seen: dict[str, object] = {}

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        seen.update(
            url=str(request.url),
            json=await request.json(),
            kind=request.headers["content-type"],
            state=request.state.engine,
            spec=scope["asgi"]["spec_version"],
        )

    await Exchange(
        app, path="/chat?x=1", json={"n": 1}, state={"engine": "e"}, spec_version="2.0"
    ).run()

    assert seen == {
        "url": "http://testserver/chat?x=1",
        "json": {"n": 1},
        "kind": "application/json",
        "state": "e",
        "spec": "2.0",
    }


async def test_a_body_in_pieces_comes_in_pieces():
    exchange = await Exchange(echo, body=[b"one ", b"two"]).run()

    assert exchange.data == b"one two"
    assert [received.message for received in exchange.received] == [
        {"type": "http.request", "body": b"one ", "more_body": True},
        {"type": "http.request", "body": b"two", "more_body": False},
    ]


@pytest.mark.parametrize(
    ("plan", "left_at", "data"),
    [
        pytest.param({"leaves_after_chunks": 2}, 2, b"01", id="after two chunks"),
        pytest.param({"leaves_after_chunks": 0}, 0, b"", id="after the head"),
        pytest.param({"leaves_after_seconds": 2.5}, 2.5, b"01", id="after a time"),
    ],
)
async def test_a_client_leaves_as_planned(plan: dict[str, float], left_at: float, data: bytes):
    exchange = await Exchange(count_to_five, **plan).run()

    assert (exchange.left_at, exchange.data, exchange.completed) == (left_at, data, False)
    assert len(exchange.sent) == 7  # the app did not notice: send() is silent


async def test_the_test_lets_the_client_leave_at_any_moment():
    async with Exchange(count_to_five) as exchange:
        await exchange.wait_head()
        await exchange.wait_chunks(3)
        exchange.leave()
        await exchange.wait_ended()

    assert (exchange.left_at, exchange.data, exchange.ended_at) == (3, b"012", 5)


async def test_a_client_that_leaves_is_told_to_a_parked_receive_at_once():
    heard: list[float] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        assert await read(receive, heard) == DISCONNECT

    exchange = await Exchange(app, leaves_after_seconds=2.5).run()

    assert heard == [2.5]
    assert exchange.received[-1].asked_at == 0
    assert exchange.received[-1].at == 2.5


async def test_a_client_leaves_instead_of_sending_the_rest_of_its_body():
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert (await receive())["more_body"] is True
        assert await receive() == DISCONNECT

    exchange = await Exchange(app, body=b"half", leaves_before_body_ends=True).run()

    assert exchange.left_at == 0
    later = Exchange(app, body=b"half", leaves_before_body_ends=True, leaves_after_seconds=3)
    assert (await later.run()).left_at == 3


@pytest.mark.parametrize(
    "plan", [{"stops_reading_after_chunks": 2}, {"stops_reading_after_bytes": 2}]
)
async def test_send_blocks_for_a_client_that_stopped_reading(plan: dict[str, int]):
    async with Exchange(count_to_five, **plan) as exchange:
        await exchange.wait_blocked()
        assert (anyio.current_time(), exchange.data, exchange.blocked_sends) == (3, b"01", 1)
        await anyio.sleep(60)
        assert exchange.blocked_sends == 1
        exchange.leave()

    assert (exchange.data, exchange.ended_at) == (b"01", 65)


async def test_a_client_may_go_on_reading():
    async with Exchange(count_to_five) as exchange:
        await exchange.wait_chunks(1)
        exchange.stop_reading()
        await exchange.wait_blocked()
        await anyio.sleep(10)
        exchange.resume_reading()

    assert exchange.text == "01234"
    assert [chunk.at for chunk in exchange.chunks] == [1, 12, 13, 14, 15]


async def test_an_error_of_the_app_comes_out_of_the_exchange():
    async def broken(scope: Message, receive: Receive, send: Send) -> None:
        await send(HEAD)
        raise LookupError("broken")

    exchange = Exchange(broken)
    with pytest.raises(LookupError, match="broken") as caught:
        await exchange.run()

    assert exchange.error is caught.value
    assert (exchange.outcome, exchange.status, exchange.completed) == ("raised", 200, False)


async def test_an_error_of_the_test_cancels_the_app_and_comes_out_as_it_is():
    exchange = Exchange(count_to_five)

    async def fail() -> None:
        async with exchange:
            await exchange.wait_chunks(1)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()

    assert (exchange.outcome, exchange.ended_at) == ("cancelled", 1)


async def test_waiting_for_what_will_not_come_fails_with_the_state():
    async with Exchange(echo) as exchange:
        with pytest.raises(AssertionError, match=r"3 chunks did not come: <Exchange .* 0 chunks"):
            await exchange.wait_chunks(3)


async def test_the_server_can_cancel_the_app():
    async with Exchange(count_to_five) as exchange:
        await exchange.wait_chunks(2)
        exchange.cancel()

    assert (exchange.outcome, exchange.ended_at, exchange.data) == ("cancelled", 2, b"01")


async def test_an_exchange_happens_once():
    exchange = await Exchange(echo).run()

    with pytest.raises(RuntimeError, match="happens once"):
        await exchange.run()


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        pytest.param([part(b"x")], "body was sent before http.response.start", id="no head"),
        pytest.param([HEAD, HEAD], "start was sent after http.response.start", id="two heads"),
        pytest.param(
            [HEAD, part(b"", more=False), part(b"x")], "after the end of the response", id="late"
        ),
    ],
)
async def test_messages_out_of_order_are_errors(messages: list[Message], problem: str):
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    with pytest.raises(RuntimeError, match=problem):
        await Exchange(app).run()


async def test_an_unknown_server_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="uvicorn, hypercorn, granian, standard"):
        Exchange(echo, server="gunicorn")


async def test_its_body_is_read_as_events():
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send(part(b"data: a\n\neve"))
        await send(part(b"nt: done\ndata: {}\n\n", more=False))

    exchange = await Exchange(app).run()

    assert exchange.events == [ServerEvent(data="a"), ServerEvent(data="{}", event="done")]


# -- manners of servers ------------------------------------------------------------------------


async def ask_twice_after_the_end(server: str, app: ASGIApp) -> Exchange:
    exchange = Exchange(app, server=server, leaves_after_seconds=1)
    async with exchange:
        await anyio.sleep(5)
        exchange.cancel()
    return exchange


@pytest.mark.parametrize(
    ("server", "told"), [("uvicorn", 3), ("hypercorn", 1), ("granian", 3), ("standard", 3)]
)
async def test_how_often_a_server_says_that_the_client_left(server: str, told: int):
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(3):
            assert await receive() == DISCONNECT

    exchange = await ask_twice_after_the_end(server, app)

    assert len(exchange.received) == 1 + told


@pytest.mark.parametrize(("server", "told"), [("uvicorn", 2), ("hypercorn", 1), ("granian", 2)])
async def test_how_many_parked_receivers_are_told(server: str, told: int):
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, receive)
            tasks.start_soon(read, receive)

    exchange = await ask_twice_after_the_end(server, app)

    assert len(exchange.received) == 1 + told
    assert exchange.concurrent_receives == 2


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
async def test_a_complete_response_looks_like_a_client_that_left(server: str):
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        assert await receive() == DISCONNECT

    exchange = await Exchange(app, server=server).run()

    assert (exchange.completed, exchange.left_at) == (True, None)


async def test_granian_lies_to_who_waits_for_a_body_that_others_read():
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read, receive)

    exchange = await Exchange(app, server="granian", body=b"x").run()

    assert exchange.left_at is None
    assert [each.message["type"] for each in exchange.received] == [
        "http.request",
        "http.request",
        "http.disconnect",
    ]


async def test_granians_receive_is_no_coroutine():
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        call = receive()
        with pytest.raises(TypeError):
            asyncio.get_running_loop().create_task(call)
        assert (await call)["type"] == "http.request"

    await Exchange(app, server="granian").run()


@pytest.mark.parametrize(
    ("server", "answers"),
    [
        ("uvicorn", [True, True]),
        ("granian", [False, True]),
        pytest.param("hypercorn", [True, True], id="Starlette remembers"),
    ],
)
async def test_what_a_poll_learns(server: str, answers: list[bool]):
    seen: list[bool] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        assert await request.is_disconnected() is False
        await anyio.sleep(2)
        seen.extend([await request.is_disconnected(), await request.is_disconnected()])

    await Exchange(app, server=server, leaves_after_seconds=1).run()

    assert seen == answers


async def test_a_poll_steals_the_body():
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await Request(scope, receive).is_disconnected()
        await receive()

    async with Exchange(app, body=b"x") as exchange:
        await wait_all_tasks_blocked()
        assert exchange.receiving == 1
        exchange.leave()


async def test_a_body_that_came_before_the_client_left_can_still_be_read_on_some():
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await anyio.sleep(2)
        await receive()

    kinds = {
        server: (await Exchange(app, server=server, leaves_after_seconds=1).run())
        .received[0]
        .message["type"]
        for server in ("granian", "hypercorn", "uvicorn")
    }

    assert kinds == {
        "granian": "http.request",
        "hypercorn": "http.request",
        "uvicorn": "http.disconnect",
    }


async def test_only_the_standard_lets_send_raise_for_a_client_that_left():
    exchange = Exchange(count_to_five, server="standard", leaves_after_chunks=2)
    with pytest.raises(OSError, match="the client has left"):
        await exchange.run()

    assert exchange.ended_at == 3


async def test_starlette_streams_through_it_and_forgets_its_generator():
    """Why streamkit has a response of its own: the app has ended, the generator is still open."""
    closed: list[float] = []

    async def numbers() -> AsyncIterator[bytes]:
        try:
            while True:
                await anyio.sleep(1)
                yield b"x" * 10
        finally:
            closed.append(anyio.current_time())

    body = numbers()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await StreamingResponse(body)(scope, receive, send)

    async with Exchange(app, stops_reading_after_bytes=30) as exchange:
        await exchange.wait_blocked()
        exchange.cancel()

    assert (exchange.data, exchange.ended_at, closed) == (b"x" * 30, 4, [])
    await body.aclose()


# -- lifespan ----------------------------------------------------------------------------------


def lifespan_app(log: list[str], **answers: Message) -> ASGIApp:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for step in ("startup", "shutdown"):
            log.append((await receive())["type"])
            scope["state"]["engine"] = "e"
            await send(answers.get(step, {"type": f"lifespan.{step}.complete"}))

    return app


async def test_a_lifespan_starts_and_stops_the_app():
    log: list[str] = []
    async with Lifespan(lifespan_app(log)) as lifespan:
        log.append("block")
        assert repr(lifespan) == "<Lifespan running>"

    assert log == ["lifespan.startup", "block", "lifespan.shutdown"]
    assert lifespan.state == {"engine": "e"}
    assert repr(lifespan) == "<Lifespan shut down>"


@pytest.mark.parametrize("step", ["startup", "shutdown"])
async def test_a_failed_lifespan_is_an_error(step: str):
    log: list[str] = []
    failed = {"type": f"lifespan.{step}.failed", "message": "no GPU"}
    with pytest.raises(RuntimeError, match="lifespan failed: no GPU"):
        async with Lifespan(lifespan_app(log, **{step: failed})):
            log.append("block")

    assert ("block" in log) == (step == "shutdown")


async def test_an_app_that_ends_or_breaks_before_it_has_started_is_an_error():
    async def ends(scope: Message, receive: Receive, send: Send) -> None:
        await receive()

    async def breaks(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError("no model")

    with pytest.raises(RuntimeError, match="the app ended while starting"):
        async with Lifespan(ends):
            pass
    with pytest.raises(LookupError, match="no model"):
        async with Lifespan(breaks):
            pass


@pytest.mark.parametrize("how", ["scope", "task"])
async def test_a_lifespan_that_is_cancelled_while_the_model_loads_leaves_nothing_behind(how: str):
    ended: list[float] = []

    async def loads(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(60)
        finally:
            ended.append(anyio.current_time())

    async def load() -> None:
        async with Lifespan(loads):
            pass

    if how == "scope":
        with anyio.move_on_after(5):
            await load()
    else:
        task = asyncio.get_running_loop().create_task(load())
        await anyio.sleep(5)
        task.cancel()
        await asyncio.wait([task])

    assert ended == [5]


async def test_a_message_that_is_no_lifespan_message_is_an_error():
    async def confused(scope: Message, receive: Receive, send: Send) -> None:
        await send(HEAD)

    with pytest.raises(RuntimeError, match=r"http.response.start does not belong"):
        async with Lifespan(confused):
            pass


async def test_an_error_in_the_block_shuts_the_app_down_and_comes_out():
    log: list[str] = []
    with pytest.raises(LookupError):
        async with Lifespan(lifespan_app(log)):
            raise LookupError

    assert log[-1] == "lifespan.shutdown"
