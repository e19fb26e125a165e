"""The load generator counts whole tokens of whole answers, and nothing else."""

import http.server
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from benchmarks import client
from benchmarks.apps.tokens import TOKEN, framed
from benchmarks.client import call, dechunked, encode, tokens_in

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def test_a_token_has_24_bytes():
    assert len(TOKEN.encode()) == 24


def test_tokens_are_counted_wherever_chunks_were_cut():
    body = framed(TOKEN).encode() * 3
    answer = HEAD + chunked(body[:10], body[10:70], body[70:])

    assert tokens_in(answer) == 3


def test_a_cut_answer_does_not_count():
    answer = HEAD + chunked(framed(TOKEN).encode())

    with pytest.raises(ValueError, match="subsection not found"):
        tokens_in(answer[:-5])


def test_an_error_does_not_count():
    with pytest.raises(ValueError, match="500"):
        tokens_in(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")


def test_chunks_of_any_size_are_put_together():
    assert dechunked(chunked(b"a" * 300, b"\r\n0\r\n")) == b"a" * 300 + b"\r\n0\r\n"


@pytest.mark.realtime
def test_short_requests_are_counted_and_timed(answering: int):
    for connections in (1, 3):
        calls = call(answering, encode("/", b"{}", keep=True), 30, connections)

        assert len(calls.latencies) >= 30
        assert 0 < max(calls.latencies) <= calls.seconds


@pytest.mark.realtime
def test_a_server_that_falls_silent_ends_the_measuring(monkeypatch, answering: int):
    """It had waited for ever, and a run of minutes with it."""
    monkeypatch.setattr(client, "TIMEOUT", 0.2)

    with pytest.raises(TimeoutError, match=r"no answer in 0\.2 s"):
        call(answering, encode("/4", b"{}", keep=True), 30, 3)


@pytest.fixture
def answering() -> Iterator[int]:
    """A server that answers whatever it is asked, ``/4`` four times at most; its port."""
    answers: Counter[str] = Counter()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            answers[self.path] += 1
            if self.path == "/4" and answers[self.path] > 4:
                return
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # the client leaves with requests still on their way

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
