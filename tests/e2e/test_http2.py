"""HTTP/2: a reset ends one stream and no other, the end of the connection ends them all."""

from __future__ import annotations

import pytest

from streamkit.testing import Http2Client, Http2Stream, Leave, open_http2
from tests.e2e.checks import assert_cancelled, assert_told_once, assert_untouched, new_id
from tests.e2e.servers import HTTP2, Server

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(90)]  # a server may start first

on_http2 = pytest.mark.parametrize("server", HTTP2, indirect=True)


async def ask(client: Http2Client, server: Server, query: str = "") -> tuple[str, Http2Stream]:
    """Open a stream, and return when its first event is here."""
    request_id = new_id()
    stream = await client.request("GET", f"/events?id={request_id}&engine=storm&{query}")
    await stream.read_event()
    return request_id, stream


@on_http2
async def test_a_reset_of_one_stream_leaves_its_siblings_alone(server: Server) -> None:
    async with open_http2(server.url) as client:
        ids = [new_id(), new_id()]
        paths = [f"/events?id={each}&engine=storm&tokens=200" for each in ids]
        stays = [
            (each, await client.request("GET", path)) for each, path in zip(ids, paths, strict=True)
        ]
        request_id, leaves = await ask(client, server)
        await leaves.reset()
        assert_told_once(await server.ended(request_id), "decode")

        for request_id, stream in stays:
            events = await stream.read_events()
            # On a busy machine two tokens may come in one event: their words are counted.
            assert events[-1].event == "done"
            assert sum(len(event.data.split()) for event in events[:-1]) == 200
            assert stream.ended_cleanly
            assert_untouched(await server.ended(request_id))


@on_http2
async def test_a_reset_is_heard_before_the_first_token(server: Server) -> None:
    request_id = new_id()
    async with open_http2(server.url) as client:
        stream = await client.request("GET", f"/events?id={request_id}&words=4000")
        await server.reached(request_id, "prefill")
        await stream.reset()
        assert_told_once(await server.ended(request_id), "prefill")


@on_http2
async def test_the_end_of_the_connection_before_the_first_token_leaves_nothing_behind(
    server: Server,
) -> None:
    """Hypercorn would hold an answer back for a client that is gone, and the request with it."""
    request_id = new_id()
    async with open_http2(server.url) as client:
        await client.request("GET", f"/events?id={request_id}&words=4000")
        await server.reached(request_id, "prefill")
        await client.leave(Leave.FIN)
        assert_told_once(await server.ended(request_id), "prefill")


# hypercorn takes whatever the app sends into memory, so that no write ever blocks.
@pytest.mark.parametrize("server", ["granian", "granian-uvloop"], indirect=True)
async def test_a_stream_whose_client_reads_nothing_is_cancelled_within_the_limit(
    server: Server,
) -> None:
    request_id = new_id()
    async with open_http2(server.url) as client:
        await client.request("GET", f"/hasty/flood?id={request_id}")
        await client.leave(Leave.STOP_READING)
        assert_cancelled(await server.ended(request_id), "write_stalled")


@on_http2
@pytest.mark.parametrize("how", [Leave.FIN, Leave.RST])
async def test_the_end_of_the_connection_cancels_all_its_streams(
    server: Server, how: Leave
) -> None:
    async with open_http2(server.url) as client:
        asked = [(await ask(client, server))[0] for _ in range(3)]
        await client.leave(how)
        for request_id in asked:
            assert_told_once(await server.ended(request_id), "decode")
