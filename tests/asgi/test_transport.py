"""What the server does not say, the connection knows: a client that left unread is found."""

import socket
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response

from streamkit._core import Reason
from streamkit.asgi import ByteStream, CancellationMiddleware, EventStream
from streamkit.streams import cancellable
from streamkit.testing import Exchange

SWEEP = 0.5  # seconds between two looks


class Transport:
    """An asyncio transport, as far as it is asked, over a real socket."""

    def __init__(self, end: socket.socket, *, reading: bool = False) -> None:
        self._end = end
        self._reading = reading
        self.closing = self.aborted = False

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self._end}.get(name)

    def is_closing(self) -> bool:
        return self.closing

    def is_reading(self) -> bool:
        return self._reading

    def abort(self) -> None:
        self.aborted = True


class BlindExchange(Exchange):
    """On a server that says nothing, and whose receive() leads to its transport, as uvicorn's."""

    transport: Transport


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def told() -> list[object]:
    return []


def exchange_with(ours: socket.socket, told: list[object], **options: Any) -> BlindExchange:
    async def generate():
        await anyio.sleep(2)
        yield b"x" * 1_000
        await anyio.sleep(60)

    async def app(scope, receive, send) -> None:
        source = cancellable(on_cancel=lambda c: told.append(c.reason))(generate)()
        response: Response = ByteStream(source)
        await response(scope, receive, send)

    exchange = BlindExchange(CancellationMiddleware(app), **options)
    exchange.transport = Transport(ours)
    return exchange


async def test_a_client_that_left_while_nobody_read_its_connection_is_found(ends, told):
    ours, theirs = ends
    theirs.sendall(b"GET /the/next HTTP/1.1\r\n\r\n")  # what keeps the server from seeing the end
    async with exchange_with(ours, told) as exchange:
        await anyio.sleep(1.2)
        theirs.close()

    assert told == [Reason.CLIENT_DISCONNECT]
    assert exchange.ended_at is not None
    assert exchange.ended_at == pytest.approx(1.5)  # the next look
    assert not exchange.transport.aborted


async def test_a_client_that_only_sent_more_has_not_left(ends, told):
    ours, theirs = ends
    theirs.sendall(b"GET /the/next HTTP/1.1\r\n\r\n")
    exchange = await exchange_with(ours, told).run()

    assert exchange.completed
    assert told == []


async def test_a_connection_that_the_server_closed_and_forgot_is_found(ends, told):
    ours, _ = ends
    async with exchange_with(ours, told) as exchange:
        await anyio.sleep(1.2)
        exchange.transport.closing = True

    assert told == [Reason.CLIENT_DISCONNECT]
    assert exchange.ended_at == pytest.approx(1.5)


async def test_a_client_that_closed_its_half_and_reads_nothing_keeps_no_socket(ends, told):
    """The server would wait for ever to send what it holds before it closes."""
    ours, theirs = ends
    async with exchange_with(ours, told, stops_reading_after_chunks=0) as exchange:
        await exchange.wait_blocked()
        theirs.shutdown(socket.SHUT_WR)

    assert told == [Reason.CLIENT_DISCONNECT]
    assert exchange.ended_at is not None
    assert exchange.ended_at <= 2 + SWEEP
    assert exchange.transport.aborted


class Asked(socket.socket):
    """Counts how often the kernel is asked something."""

    questions = 0

    def getsockopt(self, *what: Any) -> Any:
        self.questions += 1
        return super().getsockopt(*what)


@pytest.fixture
def asked() -> Iterator[Asked]:
    """The server's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as theirs:
        theirs.connect(listener.getsockname())
        with Asked(fileno=listener.accept()[0].detach()) as ours:
            yield ours


async def test_the_kernel_is_asked_no_more_often_than_the_bound_needs(asked, told):
    """A question costs ten times what the rest of a look does: 1,000 idle streams showed it."""
    exchange = exchange_with(asked, told)
    exchange.transport = Transport(asked, reading=True)
    await exchange.run()

    assert exchange.completed
    assert 62 / 10 < asked.questions < 62 / 3  # seconds; bound of 10 s, a look each third of it


async def test_without_a_socket_the_server_is_believed(told):
    class Bare(Transport):
        def __init__(self) -> None:
            self.closing = self.aborted = False

        def get_extra_info(self, name: str) -> Any:
            return None

    async def app(scope, receive, send) -> None:
        await EventStream(generate())(Request(scope).scope, receive, send)

    async def generate():
        await anyio.sleep(2)
        yield "all"

    exchange = BlindExchange(CancellationMiddleware(app))
    exchange.transport = Bare()
    await exchange.run()

    assert exchange.completed


@pytest.mark.parametrize("bound", [0.0, 2.9])
def test_a_bound_that_cannot_be_held_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match=r"less than 3 s cannot be held, because the kernel"):
        CancellationMiddleware(Response(), loss_bound=bound)


def test_the_least_bound_can_be_set() -> None:
    CancellationMiddleware(Response(), loss_bound=3)
