"""The menu of faults: what its words mean, and that each does over a socket what it says."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from streamkit.testing import (
    FAULT_PHASES,
    FAULT_WAYS,
    Ask,
    Fault,
    Seen,
    draw_faults,
    fault_menu,
    serve_app,
    visit,
)

EVENTS = 40
EVENT = "data: é{}\n\n"
LIMIT = 5.0

# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("rst@event:3", Fault("rst", "event", None, 3)),
        ("rst", Fault("rst", "event", None, 3)),
        ("slow:50@byte:100", Fault("slow", "byte", 50, 100)),
        ("fin@headers", Fault("fin", "headers", None, None)),
        ("storm@queued:0.5", Fault("storm", "queued", 10, 0.5)),
        ("stay", Fault("stay", "after_end")),
    ],
)
def test_a_fault_is_read_from_its_text_and_gives_it_back(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault
    assert Fault.parse(str(fault)) == fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bye@event:3", "way 'bye' is not one of stay, fin, rst, "),
        ("rst@lunch", "phase 'lunch' is not one of connecting, headers, "),
        ("", "way '' is not one of"),
        ("rst:3@event", "rst takes no number"),
        ("rst@event:many", "event takes a whole number of events above 0, got 'many'"),
        ("rst@event:2.5", "whole number of events above 0, got '2.5'"),
        ("rst@byte:0", "above 0, got '0'"),
        ("fin@queued:nan", "queued takes a number of s above 0, got 'nan'"),
        ("slow@headers", "slow goes with first_byte, queued, byte, event, code_point, not"),
        ("h2_reset@headers", "h2_reset goes with body, first_byte, queued, byte, event, after_end"),
    ],
)
def test_what_is_no_fault_is_refused_with_what_would_be_one(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".*") as refused:
        Fault.parse(text)

    assert repr(text) in str(refused.value)
    assert says in str(refused.value)


def test_the_same_seed_draws_the_same_faults() -> None:
    assert draw_faults(7, 200) == draw_faults(7, 200)
    assert draw_faults(7, 200) != draw_faults(8, 200)


def test_every_fault_that_is_drawn_or_on_the_menu_is_one_that_can_be_parsed() -> None:
    faults = (*draw_faults(1, 500), *fault_menu(over={"tls", "h2"}))

    assert [Fault.parse(str(fault)) for fault in faults] == list(faults)
    assert {fault.phase for fault in faults} == set(FAULT_PHASES)
    assert {fault.way for fault in fault_menu(over={"tls", "h2"})} == set(FAULT_WAYS) - {"stay"}
    assert not {"tls", "h2"} & {fault.over for fault in fault_menu()}


# -- on a server -----------------------------------------------------------------------------------


@dataclass
class App:
    """Counts what came to it, and how far each stream got."""

    asked: int = 0
    cut_uploads: int = 0
    sent: list[int] = field(default_factory=list)
    ended: anyio.Event = field(default_factory=anyio.Event)
    pause: float = 0.005

    async def chat(self, request: Request) -> StreamingResponse:
        self.asked += 1
        try:
            await request.body()
        except ClientDisconnect:
            self.cut_uploads += 1
            self.ended.set()
            raise
        return StreamingResponse(self.stream(), media_type="text/event-stream")

    async def stream(self) -> AsyncIterator[str]:
        number = 0
        try:
            for number in range(1, EVENTS + 1):
                yield EVENT.format(number)
                await anyio.sleep(self.pause)
        finally:
            self.sent.append(number)
            self.ended.set()

    async def wait_ended(self) -> None:
        with anyio.fail_after(LIMIT):
            await self.ended.wait()


@asynccontextmanager
async def serving(server: str = "uvicorn", **options: object) -> AsyncIterator[tuple[App, Ask]]:
    app = App()
    routes = [Route("/chat", app.chat, methods=["POST"])]
    async with serve_app(Starlette(routes=routes), server) as url:
        yield app, Ask(url=f"{url}/chat", json={"prompt": "word " * 20}, **options)


WHOLE = "".join(EVENT.format(number) for number in range(1, EVENTS + 1)).encode()


@pytest.mark.realtime
@pytest.mark.parametrize("phase", ["connecting", "headers", "body", "headers:7", "body:1"])
async def test_a_client_that_leaves_inside_its_request_is_never_answered(phase: str) -> None:
    async with serving() as (app, ask):
        seen = await visit(ask, f"rst@{phase}")
        assert (seen.reached, seen.status, seen.sent_at, seen.error) == (True, None, None, None)
        if phase.startswith("body"):
            await app.wait_ended()

    assert not app.sent
    assert app.cut_uploads == app.asked == (1 if phase.startswith("body") else 0)


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("phase", "body"),
    [
        ("byte:1", WHOLE[:1]),
        ("byte:33", WHOLE[:33]),
        ("code_point", "data: é".encode()[:-1]),
        ("last_byte", WHOLE),
        ("after_end", WHOLE),
    ],
)
async def test_a_phase_inside_the_answer_is_exact_to_the_byte(phase: str, body: bytes) -> None:
    async with serving() as (app, ask):
        seen = await visit(ask, f"fin@{phase}")
        await app.wait_ended()

    assert (seen.reached, seen.status, seen.error) == (True, 200, None)
    assert bytes(seen.body) == body
    # The last byte is the framing's: the body is there, and the answer is not complete.
    assert seen.complete is (phase == "after_end")


@pytest.mark.realtime
@pytest.mark.parametrize("way", ["fin", "rst", "half_close", "kill", "slow", "storm:3"])
async def test_a_client_that_leaves_after_three_events_is_noticed_there(way: str) -> None:
    async with serving() as (app, ask):
        app.pause = 0.05
        seen = await visit(ask, f"{way}@event:3", stay=lambda: anyio.sleep(0.2))
        await app.wait_ended()

    assert seen.left_at is not None
    assert seen.left_at >= (seen.first_byte_at or 0)
    times = 3 if way.startswith("storm") else 1
    assert (seen.reached, seen.complete, seen.visits) == (True, False, times)
    assert len(app.sent) == app.asked == times
    assert all(3 <= sent < EVENTS / 2 for sent in app.sent)


@pytest.mark.realtime
async def test_one_who_stops_reading_is_there_until_its_time_is_over() -> None:
    async with serving() as (app, ask):
        sent_meanwhile: list[int] = []

        async def stay() -> None:
            await app.wait_ended()
            sent_meanwhile.extend(app.sent)

        seen = await visit(ask, "stop_reading@event:2", stay=stay)

    assert sent_meanwhile == [EVENTS], "the kernel took it all: nothing told the server"
    assert len(seen.events) == 2


@pytest.mark.realtime
@pytest.mark.parametrize("way", ["h2_reset", "h2_goaway"])
@pytest.mark.parametrize("phase", ["event:3", "byte:20", "after_end"])
async def test_over_http2_a_stream_is_reset_or_the_connection_said_goodbye(
    way: str, phase: str
) -> None:
    async with serving("hypercorn") as (app, ask):
        app.pause = 0.0 if phase == "after_end" else 0.05
        seen = await visit(ask, f"{way}@{phase}")
        await app.wait_ended()

    assert (app.sent[0] < EVENTS / 2) is (phase != "after_end")
    assert (seen.reached, seen.error) == (True, None)


@pytest.mark.realtime
@pytest.mark.parametrize("way", ["fin", "rst", "half_close", "kill", "slow", "storm:3"])
async def test_whoever_comes_over_http2_may_leave_in_the_ways_of_http1(way: str) -> None:
    async with serving("hypercorn", http2=True) as (app, ask):
        app.pause = 0.05
        seen = await visit(ask, f"{way}@event:3", stay=lambda: anyio.sleep(0.2))
        await app.wait_ended()

    assert (seen.reached, seen.complete, seen.error) == (True, False, None)
    assert all(3 <= sent < EVENTS / 2 for sent in app.sent)


@pytest.mark.realtime
@pytest.mark.parametrize("way", ["fin", "h2_reset"])
async def test_over_http2_a_body_that_is_half_sent_is_cut_off(way: str) -> None:
    async with serving("hypercorn", http2=True) as (app, ask):
        seen = await visit(ask, f"{way}@body")
        await app.wait_ended()
        await visit(ask, "rst@headers")

    assert (seen.reached, seen.status) == (True, None)
    assert (app.asked, app.cut_uploads, app.sent) == (1, 1, [])


@pytest.mark.realtime
@pytest.mark.parametrize("fault", ["pipeline@event:1", "rst@code_point", "fin@last_byte"])
async def test_what_http2_has_not_is_refused(fault: str) -> None:
    with pytest.raises(ValueError, match=f"there is no {fault} over HTTP/2"):
        await visit(Ask(url="http://127.0.0.1:9/", http2=True), fault)


@pytest.mark.realtime
async def test_a_server_without_http2_is_an_observation_and_no_crash() -> None:
    async with serving("uvicorn") as (_, ask):
        seen = await visit(ask, "h2_reset@event:1")

    assert not seen.reached
    assert seen.error
    assert "ended without a response" in seen.error or "expected HTTP/2" in seen.error


@pytest.mark.realtime
async def test_a_phase_that_never_comes_is_told() -> None:
    async with serving() as (_, ask):
        seen = await visit(ask, f"fin@event:{EVENTS + 1}")

    assert (seen.reached, seen.complete, len(seen.events)) == (False, True, EVENTS)


@pytest.mark.realtime
async def test_a_refused_connection_is_an_observation() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    seen = await visit(Ask(url=f"http://127.0.0.1:{port}/"), "rst")

    assert seen.error
    assert seen.error.startswith("ConnectionRefusedError")


# -- against a bare socket: what no app can see ---------------------------------------------------


class Peer:
    """Accepts one connection in a thread, answers with one event, and notes how it ended."""

    def __init__(self, tls: ssl.SSLContext | None = None, user_timeout: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self._user_timeout = user_timeout
        self.port = self._listener.getsockname()[1]
        self.got = b""
        self.ended: str | None = None
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(LIMIT)
        if self._user_timeout:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._user_timeout)
        if self._tls:
            connection = self._tls.wrap_socket(
                connection, server_side=True, suppress_ragged_eofs=False
            )
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n"
        self.got = connection.recv(65_536)
        connection.sendall(head)
        try:
            while data := connection.recv(65_536):
                self.got += data
                if self._user_timeout:
                    connection.sendall(b"data: 2\n\n")
            self.ended = "end"
        except OSError as error:
            self.ended = type(error).__name__
        connection.close()
        self._listener.close()
        self.over.set()

    async def wait(self) -> None:
        await anyio.to_thread.run_sync(self._thread.join, LIMIT * 2)
        assert not self._thread.is_alive()


@pytest.mark.realtime
async def test_a_pipelining_client_has_sent_its_request_twice_when_it_leaves() -> None:
    peer = Peer()
    ask = Ask(url=f"http://127.0.0.1:{peer.port}/chat", json={"x": 1})
    await visit(ask, "pipeline@event:1")
    await peer.wait()

    assert peer.got == b"".join(ask.encode()) * 2
    assert peer.ended == "end"


@pytest.mark.realtime
async def test_a_client_that_vanished_sends_no_packet_at_all() -> None:
    """Nothing but the server's own limit, TCP_USER_TIMEOUT here, ends the connection."""
    peer = Peer()
    ask = Ask(url=f"http://127.0.0.1:{peer.port}/chat", json={"x": 1})
    told: list[str | None] = []

    async def stay() -> None:
        await anyio.sleep(0.5)
        told.append(peer.ended)

    await visit(ask, "vanish@event:1", stay=stay)
    await peer.wait()

    assert told == [None]
    assert peer.ended == "end", "its connection is closed when its time is over"


@pytest.mark.realtime
async def test_what_is_sent_to_a_client_that_vanished_is_never_acknowledged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ask = Ask(url=f"http://127.0.0.1:{listener.getsockname()[1]}/chat")

        async def talk() -> None:
            connection, _ = await anyio.to_thread.run_sync(listener.accept)
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n")
                await anyio.sleep(0.3)  # until it has read that, and vanished
                connection.sendall(b"data: 2\n\n")
                connection.settimeout(LIMIT)
                with pytest.raises(TimeoutError, match="timed out"):
                    await anyio.to_thread.run_sync(_read_all, connection)
            vanished.set()

        vanished = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk)
            seen = await visit(ask, "vanish@event:1", stay=vanished.wait)

    assert seen.reached


def _read_all(connection: socket.socket) -> None:
    connection.settimeout(None)  # the kernel's limit shall end it
    while connection.recv(65_536):
        pass


@pytest.mark.realtime
@pytest.mark.parametrize(("way", "ended"), [("tls_cut", "SSLEOFError"), ("fin", "end")])
async def test_over_tls_only_tls_cut_leaves_out_the_close_notify(
    certificate: tuple[Path, Path], way: str, ended: str
) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*certificate)
    peer = Peer(server)
    ask = Ask(
        url=f"https://127.0.0.1:{peer.port}/chat",
        json={},
        tls=ssl.create_default_context(cafile=certificate[0]),
    )
    seen = await visit(ask, f"{way}@event:1")
    await peer.wait()

    assert (seen.reached, seen.error) == (True, None)
    assert peer.ended == ended


@pytest.mark.realtime
async def test_a_certificate_that_nobody_vouches_for_is_an_observation(
    certificate: tuple[Path, Path],
) -> None:
    app = Starlette()
    async with serve_app(app, certificate=certificate) as url:
        seen: Seen = await visit(Ask(url=url), "tls_cut")

    assert seen.error
    assert "CERTIFICATE_VERIFY_FAILED" in seen.error


@pytest.mark.realtime
async def test_tls_cut_without_tls_says_what_it_needs() -> None:
    async with serving() as (_, ask):
        with pytest.raises(ValueError, match="it needs an https URL"):
            await visit(ask, "tls_cut@event:1")
