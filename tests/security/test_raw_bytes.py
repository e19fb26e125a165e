"""Bytes that no client of good will sends, to `streamkit serve` as a process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from streamkit.testing import open_request, serve_app
from tests.server.serving import LIMIT, Served, serving
from tests.server.test_process import exchange

pytestmark = pytest.mark.realtime

EVIL = "a\x1b[2J\x9b\r\n2026-01-01 00:00:00,000 INFO streamkit.access: id=forged\u2028x\u202e\x00"
STEER = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]")

MODEL = """
class Model:
    def predict(self, inputs):
        if "error" in inputs:
            raise ValueError(inputs["error"])
        yield from inputs["chunks"]
"""

SOCKET = """
class Model:
    async def websocket(self, websocket):
        async for text in websocket.iter_text():
            await websocket.send_text(str(len(text)))
"""


@pytest.fixture(scope="module", params=["h11", "httptools"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving("--http", request.param, "--read-timeout", "0.3", "--log-level=debug") as server:
        yield server


def ask(*headers: bytes, path: bytes = b"/generate", body: bytes = b"") -> bytes:
    return b"\r\n".join([b"POST %b HTTP/1.1" % path, b"host: x", *headers, b"", body])


def get(path: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path


BODY = b'{"prompt": "a", "max_tokens": 1}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"content-length: %d" % len(BODY)
HIDDEN = get(b"/hidden")
AMBIGUOUS = {
    "a length and chunks": ask(
        b"content-length: 4", b"transfer-encoding: chunked", body=CHUNKED + HIDDEN
    ),
    "chunks and a length": ask(b"transfer-encoding: chunked", LENGTH, body=CHUNKED + HIDDEN),
    "two lengths": ask(b"content-length: 3", LENGTH, body=BODY + HIDDEN),
    "a length with a sign": ask(b"content-length: +%d" % len(BODY), body=BODY + HIDDEN),
    "a space before the colon": ask(b"transfer-encoding : chunked", body=CHUNKED + HIDDEN),
    "an encoding that there is not": ask(b"transfer-encoding: xchunked", body=CHUNKED + HIDDEN),
    "chunks inside of something": ask(
        b"transfer-encoding: chunked, identity", body=CHUNKED + HIDDEN
    ),
    "a chunk below zero": ask(b"transfer-encoding: chunked", body=b"-1\r\n" + CHUNKED + HIDDEN),
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_may_be_one_request_or_two_is_not_two(served: Served, sent: bytes) -> None:
    answer = exchange(served, sent)

    assert answer.count(b"HTTP/1.1 ") <= 1
    assert b"there is no such path" not in answer


@pytest.mark.parametrize(
    "value",
    [b"a\rset-cookie: x=1", b"a\0b", b"a b", b"\xff", b'a"', b"a" * 129],
)
def test_no_id_that_is_more_than_an_id_comes_back(served: Served, value: bytes) -> None:
    own = (b"x-request-id: " + value, LENGTH, b"connection: close")

    answer = exchange(served, ask(*own, body=BODY))

    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"set-cookie" not in head
    ids = re.findall(rb"^x-request-id: (.*)\r?$", head, re.MULTILINE)
    assert all(re.fullmatch(rb"[0-9a-f]{32}", each.strip()) for each in ids), ids


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/models/../../../../etc/passwd",
        b"/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        b"/v1/requests/%2e%2e%2fengine",
        b"/v1/models/%00",
        b"/v1/models/a%0d%0aset-cookie:%20x=1",
        b"/v1/models/%ff%fe%1b[2J",
        b"/v1/models/" + b"a" * 60_000,
    ],
)
def test_no_path_leads_to_a_file_or_into_the_answers_head(served: Served, path: bytes) -> None:
    answer = exchange(served, get(path))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"set-cookie" not in head.lower()
    assert (b"content-type: application/json" in head, b"root:" in body) == (True, False)
    assert set(json.loads(body)["error"]) >= {"message", "type", "code"}
    assert len(body) < 1000


def test_a_header_of_64_kb_is_not_repeated_whole(served: Served) -> None:
    for name in (b"content-type", b"content-encoding"):
        value = b"%b: %b" % (name, b"x" * 60_000)

        answer = exchange(served, ask(value, LENGTH, b"connection: close", body=BODY))

        assert answer.startswith(b"HTTP/1.1 415 ")
        assert len(answer) < 1000


# -- what a model hands on ---------------------------------------------------------------------


def predict(inputs: object, *headers: bytes) -> bytes:
    body = json.dumps(inputs).encode()
    length = b"content-length: %d" % len(body)
    return ask(length, b"connection: close", *headers, path=b"/predict", body=body)


async def test_no_text_of_a_model_is_more_than_the_data_of_its_event(serve) -> None:
    class Repeats:
        def predict(self, inputs: list[str]) -> Iterator[str]:
            yield from inputs

    texts = [
        "a\r\n\r\nevent: done\r\ndata: {}",
        "b\n\nid: 7\nretry: 1\n: x\n\n",
        "\u2028\x85\0",
        EVIL,
    ]
    headers = {"accept": "text/event-stream"}
    async with (
        serve_app(serve(Repeats)) as url,
        open_request("POST", f"{url}/predict", json=texts, headers=headers) as client,
    ):
        events = await client.read_events()

    plain = "".join(texts).replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(each.data for each in events[:-1]) == plain
    assert [each.event for each in events] == ["message"] * len(texts) + ["done"]
    assert {each.id for each in events} == {None}


def test_a_websocket_message_is_no_longer_than_a_body_however_small_it_was_packed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.py"
    file.write_text(SOCKET)
    with (
        serving(str(file), "--max-body-bytes", "100000") as model,
        connect(model.url.replace("http", "ws") + "/v1/websocket", compression="deflate") as client,
    ):
        client.send("x" * 99_000)
        assert client.recv(timeout=LIMIT) == "99000"
        client.send("x" * 20_000_000)  # 20 KB on the wire
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=LIMIT)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_nothing_that_a_client_sends_makes_a_line_of_the_log(tmp_path: Path) -> None:
    """In JSON, too: the other lines stand between those of the access log."""
    file = tmp_path / "model.py"
    file.write_text(MODEL)
    agent = b"user-agent: " + EVIL.partition("\r")[0].encode()
    key = "the-operators-own-key"
    flags = ("--access-log=json", "--log-level=debug", f"--operator-key={key}")
    with serving(str(file), *flags) as server:
        refused = exchange(server, get(b"/v1/requests"))
        for inputs in (
            {"error": EVIL},
            {"error": '\n{"time": 0, "id": "forged"}'},
            {"chunks": [EVIL]},
        ):
            for more in ((), (agent,), (b"x-request-id: a b",)):
                exchange(server, predict(inputs, *more))
        exchange(server, get(b"/v1/models/%" + EVIL.encode().hex("%").encode()))
        server.signal()
        _, log = server.wait()

    assert refused.startswith(b"HTTP/1.1 401 ")
    assert key not in log
    assert "OPERATOR_KEY" not in log
    assert log.count("ValueError") >= 2
    assert "forged" in log
    assert not STEER.search(log)
    lines = [line for line in log.splitlines() if not line.startswith("  ")]
    assert all(re.match(r'\{"time": "|\d{4}-\d\d-\d\d ', line) for line in lines)
    assert not [line for line in lines if "forged" in line and "/v1/models/" not in line]
