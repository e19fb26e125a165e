"""A client that stays loses nothing, and is never taken for one that left."""

from __future__ import annotations

import hashlib
import json

import pytest

from streamkit.testing import open_connection
from tests.e2e.checks import asking, assert_untouched, new_id
from tests.e2e.servers import SERVERS, Server

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(90)]  # a server may start first

every_server = pytest.mark.parametrize("server", SERVERS, indirect=True)

KINDS = {
    "/events": 5,
    "/bytes": 5,
    "/starlette": 5,
    "/sse-starlette": 5,
    "/fastapi/stream": 5,
    "/base/stream": 5,
    "/call": 5,
    "/thread": 5,
}


@every_server
async def test_the_end_of_a_response_is_no_disconnect_on_a_connection_that_is_used_again(
    server: Server,
) -> None:
    async with open_connection(server.url) as client:
        for path, tokens in KINDS.items():
            request_id = new_id()
            await client.send_request("GET", f"{path}?id={request_id}&tokens={tokens}")
            assert await client.read_body()
            assert client.ended_cleanly
            client.next_response()
            report = await server.ended(request_id)
            assert_untouched(report)
            assert report["yielded"] == tokens


@every_server
async def test_a_poll_before_the_body_was_read_loses_nothing_of_it(server: Server) -> None:
    body = {"text": "y" * 300_000}
    async with asking(server, "/polite", method="POST", json=body) as (request_id, client):
        answer = json.loads(await client.read_body())

    assert answer["asked"] == [False] * 5
    assert answer["sha256"] == hashlib.sha256(json.dumps(body).encode()).hexdigest()
    assert_untouched(await server.ended(request_id))


@every_server
async def test_many_receivers_and_a_body_that_nobody_read_are_no_disconnect(
    server: Server,
) -> None:
    """Granian answers two callers with a disconnect that never was; ours has one caller."""
    asked = asking(server, "/two-receivers", "tokens=20", method="POST", json={"a": 1})
    async with asked as (request_id, client):
        assert len((await client.read_body()).split()) == 20
        assert client.ended_cleanly
    report = await server.ended(request_id)

    assert_untouched(report)
    assert "http.disconnect" not in report["notes"]
