"""Whatever a server sends to `streamkit chaos`, it gets a verdict, and no hold of who reads it."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamkit.server import cli
from streamkit.testing import EventParser
from streamkit.testing._faults import Seen
from streamkit.testing._http1 import BadResponse, ResponseReader

Answer = Callable[[str, int], bytes]  # by path, and how many were asked for it before
QUICK = ("--clients=2", "--concurrency=2", "--stop-within=0.1", "--stay=0.1", "--timeout=0.5")
BOOKS = b'{"running": 0, "queued": 0, "tokens": 0}'
EVIL = "<script>alert(1)</script>\x1b[2J\x1b]0;owned\x07\x9b1A\u202e"


def page(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@contextmanager
def hostile(answer: Answer) -> Iterator[str]:
    """A server that sends these bytes, whatever is asked."""
    asked: dict[str, int] = {}

    class Handler(socketserver.StreamRequestHandler):
        timeout = 2

        def handle(self) -> None:
            path = self.rfile.readline().split(b" ")[1].decode()
            while self.rfile.readline().strip():
                pass
            number = asked[path] = asked.get(path, 0) + 1
            self.wfile.write(answer(path, number - 1))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """The client has left: that is what it is for."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


COUNTERS: dict[str, bytes] = {
    "nothing": b"",
    "no HTTP": b"\x1b[31mhello\r\n\r\n",
    "a status of digits that are none": b"HTTP/1.1 \xb2\xb2\xb2 x\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\ncontent-length: \x1b[2J\r\n\r\n",
    "a length below zero": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "a length of 5000 digits": b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
    "nothing but continues": b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
    "a chunk that is none": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nabc",
    "a chunk of a terabyte": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\nx",
    "trailers without end": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x" * 100_000
    ),
    "no JSON": page(b"{" + EVIL.encode()),
    "deep JSON": page(b'{"a":' * 100_000),
    "JSON with a number that is none": page(b'{"running": NaN, "queued": 0, "tokens": 0}'),
    "JSON with an infinity": page(b'{"running": 1e999, "queued": 0, "tokens": 0}'),
    "JSON with an integer too large": page(b'{"running": 1' + b"0" * 400 + b"}"),
    "no Prometheus text": page(b'x{y="\x1b[2J} ' + EVIL.encode()),
    "another status": page(EVIL.encode(), b"500 \x1b[2J"),
}


@pytest.mark.realtime
@pytest.mark.parametrize("sent", COUNTERS.values(), ids=COUNTERS)
def test_counters_that_make_no_sense_are_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], sent: bytes
) -> None:
    with hostile(lambda _path, _number: sent) as url:
        status = cli.main(["chaos", url, *QUICK])

    out, error = capsys.readouterr()
    assert (status, out) == (1, "")
    assert error.startswith("streamkit chaos: ")
    assert len(error) < 400
    assert_harmless(error)


@pytest.mark.realtime
@pytest.mark.parametrize("listed", [b"[", b"{}", b'{"data": [{"id": 5}]}', b'{"data": "x"}'])
def test_a_list_of_models_that_makes_no_sense_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], listed: bytes
) -> None:
    with hostile(lambda _path, _number: page(listed)) as url:
        assert cli.main(["chaos", url, "--target-profile=openai", *QUICK]) == 1

    error = capsys.readouterr().err
    assert "/v1/models lists no model: name one with --model" in error
    assert error.count("\n") == 1


@pytest.mark.realtime
@pytest.mark.parametrize("sent", COUNTERS.values(), ids=COUNTERS)
def test_an_answer_that_makes_no_sense_to_the_doctor_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], sent: bytes
) -> None:
    with hostile(lambda _path, _number: sent) as url:
        status = cli.main(["doctor", url, "--timeout=0.5"])

    out, error = capsys.readouterr()
    assert (status, out) == (1, "")
    assert error.startswith("streamkit doctor: ")
    assert error.count("\n") == 1
    assert len(error) < 400
    assert_harmless(error)


LIMITLESS = (
    b'{"requests": [{"id": "x", "phase": "finished", "reason": null, "cancelled_in": null, '
    b'"arrived_at": 1, "age": 1, "detected_after": null, "prompt_tokens": 1e999}]}'
)


@pytest.mark.realtime
@pytest.mark.parametrize("books", [b"[", b'{"requests": 5}', b'{"requests": [1]}', LIMITLESS])
def test_books_that_make_no_sense_are_no_witness_to_the_doctor(
    capsys: pytest.CaptureFixture[str], books: bytes
) -> None:
    def answer(path: str, _: int) -> bytes:
        return page(books if path.startswith("/v1/") else b"data: x\n\ndata: y\n\n")

    with hostile(answer) as url:
        cli.main(["doctor", url, "--check=request", "--timeout=0.5"])

    assert "witness  nobody" in capsys.readouterr().out


@pytest.mark.realtime
def test_the_doctor_hands_on_no_header_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    head = "".join(
        f"{name}: {kind} {EVIL}\r\n"
        for name, kind in (("server", "nginx"), ("content-encoding", ""), ("x-request-id", ""))
    )
    body = b"data: x\n\ndata: y\n\n"
    sent = f"HTTP/1.1 200 OK\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body

    with hostile(lambda _path, _number: sent) as url:
        status = cli.main(["doctor", url, "--check=compression", "--timeout=0.5"])

    out, error = capsys.readouterr()
    assert status == 1
    assert "nginx" in out
    assert_harmless(out + error)


LATER: dict[str, bytes] = {
    "a first line": f"HTTP/1.1 {EVIL}\r\n\r\n".encode(),
    "events": page(f"event: {EVIL}\nid: {EVIL}\ndata: {EVIL}\n\n".encode()),
    "a chunk": f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{EVIL}\r\n".encode(),
}
BASELINE = 9  # answers that are asked for before anything is dropped


@pytest.mark.realtime
@pytest.mark.parametrize("sent", LATER.values(), ids=LATER)
def test_no_report_hands_on_what_a_server_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sent: bytes
) -> None:
    def answer(path: str, number: int) -> bytes:
        if path == "/v1/engine":
            return page(BOOKS)
        return page(b"data: x\n\ndata: y\n\n") if number < BASELINE else sent

    files = [tmp_path / "report.html", tmp_path / "report.json"]
    with hostile(answer) as url:
        faults = ("--fault=rst@event:1", "--fault=fin@byte:3")
        wanted = (f"--html={files[0]}", f"--json={files[1]}")
        status = cli.main(["chaos", url, *QUICK, *faults, *wanted])

    assert status == 1
    printed = capsys.readouterr()
    for text in (printed.out, printed.err, *(file.read_text() for file in files)):
        assert_harmless(text)
    assert "<script" not in files[0].read_text()


def assert_harmless(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), text
    assert "Traceback" not in text


@pytest.mark.parametrize("cut", [1, 7, 65_536])
@pytest.mark.parametrize("sent", COUNTERS.values(), ids=COUNTERS)
def test_a_response_that_makes_no_sense_is_a_bad_response_however_it_is_cut(
    sent: bytes, cut: int
) -> None:
    reader = ResponseReader()
    short = sent if cut > 100 else sent[:2000]

    said = ""
    try:
        for start in range(0, len(short), cut):
            reader.feed(short[start : start + cut])
            assert len(reader.partial) <= len(short)
    except BadResponse as error:
        said = str(error)

    assert_harmless(said)
    assert len(said) < 400


def test_a_line_without_end_is_not_searched_for_events() -> None:
    seen, parser = Seen(fault="stay", began_at=0.0), EventParser()

    for _ in range(40):
        seen.take(b"x" * 65_536, 1.0)
        parser.feed(b"x")
    seen.take(b"\n\ndata: late\n\n", 2.0)

    assert len(seen.body) == 40 * 65_536 + 14
    assert (seen.events, parser.waiting) == ([], 40)


def test_no_more_of_an_answer_is_kept_than_anybody_can_want_to_see() -> None:
    seen = Seen(fault="stay", began_at=0.0)

    for _ in range(65):
        seen.take(bytes(1 << 20), 1.0)

    with pytest.raises(BadResponse, match="the answer is longer than 67108864 bytes"):
        seen.take(b"x", 1.0)
