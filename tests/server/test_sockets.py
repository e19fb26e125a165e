"""The listening socket: what is set on it, connections inherit; what cannot be had is named."""

import logging
import socket
from collections.abc import Iterator

import pytest

from streamkit.server._sockets import CannotListen, listen, url_of
from streamkit.server.settings import Settings

TCP = socket.IPPROTO_TCP


@pytest.fixture
def connection(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """The server's end of a connection to a socket with these settings."""
    settings = Settings(port=0, **getattr(request, "param", {}))
    with (
        listen(settings) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        yield accepted


def test_connections_give_up_what_nobody_takes(connection: socket.socket) -> None:
    assert connection.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 10_000
    assert connection.getsockopt(TCP, socket.TCP_NOTSENT_LOWAT) == 16_384
    # Linux doubles what was asked for, for its own books.
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 65_536


@pytest.mark.parametrize(
    "connection",
    [{"tcp_notsent_lowat": "off", "tcp_send_buffer": "off"}],
    indirect=True,
)
def test_what_is_switched_off_is_the_systems_own(connection: socket.socket) -> None:
    with socket.socket() as plain:
        buffer = plain.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    assert connection.getsockopt(TCP, socket.TCP_NOTSENT_LOWAT) in {0, 2**32 - 1, -1}
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= buffer


def test_what_a_platform_does_not_have_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    caplog.set_level(logging.DEBUG, logger="streamkit.server")

    with listen(Settings(port=0)):
        pass

    assert caplog.messages == ["this platform has no TCP_USER_TIMEOUT"]


def test_what_the_kernel_refuses_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(socket, "TCP_USER_TIMEOUT", 9_999)  # a number that no kernel knows
    caplog.set_level(logging.DEBUG, logger="streamkit.server")

    with listen(Settings(port=0)):
        pass

    assert "TCP_USER_TIMEOUT cannot be set to 10000 here: " in caplog.text


def test_the_port_is_the_real_one() -> None:
    with listen(Settings(port=0)) as sock:
        assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_an_ipv6_address_is_spelt_in_brackets() -> None:
    try:
        sock = listen(Settings(host="::1", port=0))
    except CannotListen:
        pytest.skip("this machine has no IPv6")
    with sock:
        assert url_of(sock) == f"http://[::1]:{sock.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "why"),
    [
        pytest.param("192.0.2.1", "cannot assign requested address", id="not ours"),
        pytest.param("no such host", "", id="no host"),
        pytest.param("a" * 300, "", id="too long for a name"),
    ],
)
def test_a_host_that_cannot_be_had_is_named(host: str, why: str) -> None:
    with pytest.raises(CannotListen, match=f"cannot listen on {host}:0: {why}"):
        listen(Settings(host=host, port=0))


def test_a_port_in_use_is_named() -> None:
    with listen(Settings(port=0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(CannotListen) as error:
            listen(Settings(port=port))

    assert str(error.value) == (
        f"cannot listen on 127.0.0.1:{port}: address already in use; choose another --host or "
        "--port (--port 0 picks a free one)"
    )
