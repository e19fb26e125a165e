"""A websocket has one line in the access log, as any request: when it is over, however it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import pytest
from fastapi import WebSocket

from streamkit._core import wait_held
from streamkit.server._metrics import Metrics
from tests.asgi.socket_exchange import SocketExchange

PATH = "/v1/websocket"


class Talks:
    """Sends until it is told to stop."""

    async def websocket(self, websocket: WebSocket) -> None:
        if await websocket.receive_text() == "raise":
            raise ValueError("mine")
        for number in range(3):
            await websocket.send_text(str(number))
            await anyio.sleep(1)


class Predicts:
    def predict(self, inputs):
        return inputs


@pytest.fixture
def line(caplog: pytest.LogCaptureFixture) -> Callable[[], dict[str, str]]:
    """The one line that there is, by its fields."""
    caplog.set_level(logging.INFO, logger="streamkit.access")

    def read() -> dict[str, str]:
        [said] = [each.message for each in caplog.records if each.name == "streamkit.access"]
        return dict(pair.split("=", 1) for pair in said.split(" "))

    return read


def parts(line: dict[str, str]) -> tuple[str, ...]:
    return tuple(line.get(name, "") for name in ("method", "path", "status", "phase", "reason"))


async def test_one_that_ended_by_itself_says_101_its_id_and_how_long_it_lasted(serve, line) -> None:
    exchange = SocketExchange(serve(Talks), "go", path=PATH, headers={"x-request-id": "mine"})
    await exchange.run()
    await wait_held(5)

    assert parts(line()) == ("GET", PATH, "101", "finished", "-")
    assert (line()["id"], line()["total_s"]) == ("mine", "3.0")
    assert dict(exchange.sent[0]["headers"])[b"x-request-id"] == b"mine"


async def test_one_whose_client_left_says_499_and_when(serve, line) -> None:
    async with SocketExchange(serve(Talks), "go", path=PATH) as exchange:
        await exchange.wait_sent(2)
        exchange.leave()
    await wait_held(5)

    assert parts(line()) == ("GET", PATH, "499", "prefill", "client_disconnect")
    assert line()["proof"] == "joined"


async def test_one_whose_model_failed_says_so(serve, line) -> None:
    await SocketExchange(serve(Talks), "raise", path=PATH).run()
    await wait_held(5)

    assert parts(line()) == ("GET", PATH, "101", "failed", "error")


@pytest.mark.parametrize(
    ("denies", "settings", "path", "status"),
    [
        (True, {"allowed_hosts": "localhost"}, PATH, "400"),
        (False, {"allowed_hosts": "localhost"}, PATH, "403"),
        (True, {"loaded": False}, PATH, "503"),
        (True, {}, "/nowhere", "403"),
    ],
)
async def test_one_that_was_refused_says_with_which_status(
    serve, line, denies: bool, settings: dict[str, object], path: str, status: str
) -> None:
    exchange = SocketExchange(serve(Talks, **settings), "go", path=path, denies=denies)
    await exchange.run()
    await wait_held(5)

    assert parts(line())[:3] == ("GET", path, status)
    if denies and path == PATH:
        assert dict(exchange.sent[0]["headers"])[b"x-request-id"].decode() == line()["id"]


async def test_it_is_counted_by_its_route_and_status(serve) -> None:
    app = serve(Talks)
    await SocketExchange(app, "go", path=PATH).run()
    await wait_held(5)

    metrics: Metrics = app.metrics
    assert 'route="/v1/websocket",status="101"} 1.0' in metrics.expose().decode()


async def test_a_model_without_one_is_accepted_and_closed_as_on_truss(serve, line) -> None:
    await SocketExchange(serve(Predicts), path=PATH).run()
    await wait_held(5)

    assert parts(line())[:3] == ("GET", PATH, "101")
