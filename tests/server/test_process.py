"""`streamkit serve` as a process: ready line, real sockets, signals, exit status, log."""

import contextlib
import signal
import socket
import time

import anyio
import httpx
import pytest

from streamkit.testing import Leave, encode_request, open_request

from .serving import LIMIT, Served, access_lines, serving

pytestmark = pytest.mark.realtime
HTTP = ["h11", "httptools"]
LOOP = {"h11": "asyncio", "httptools": "uvloop"}


@pytest.fixture(scope="module", params=HTTP)
def served(request: pytest.FixtureRequest):
    """A server that many tests share, once with each parser and loop."""
    flags = ("--http", request.param, "--loop", LOOP[request.param])
    limits = ("--read-timeout", "0.3", "--max-body-bytes", "100000", "--write-stall", "1")
    with serving(*flags, *limits, step_ms=2) as server:
        yield server


def exchange(served: Served, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send bytes as they are; return all that comes until the server closes."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(pause)  # noqa: TID251 - a slow client
        received = b""
        while piece := client.recv(65_536):
            received += piece
    return received


def post(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST /generate HTTP/" + version, b"host: x", b"content-type: application/json"]
    return b"\r\n".join([*lines, *headers, b"", body])


BODY = b'{"prompt": "a b c", "max_tokens": 3}'
LENGTH = b"content-length: %d" % len(BODY)


def test_it_answers(served: Served) -> None:
    answer = served.generate(max_tokens=5)

    assert answer.status_code == 200
    assert answer.json()["text"] == "high low hard call list"
    assert "server" not in answer.headers


def test_http_1_0_is_answered(served: Served) -> None:
    answer = exchange(served, post(BODY, LENGTH, version=b"1.0"))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b'"completion_tokens":3' in body


def test_head_has_no_body(served: Served) -> None:
    answer = httpx.head(f"{served.url}/health/live")

    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_what_is_not_http_is_400(served: Served) -> None:
    answer = exchange(served, b"\x16\x03\x01 not HTTP at all\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"x-request-id: " in answer
    assert b'"type": "invalid_request_error"' in answer


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"POST /generate HT"], id="half a head"),
        pytest.param(
            [b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n", b"GET "], id="half a second"
        ),
        pytest.param([b"P", b"O", b"S", b"T", b" ", b"/"], id="a byte at a time"),
    ],
)
def test_half_a_head_is_408(served: Served, pieces: list[bytes]) -> None:
    began = time.monotonic()  # noqa: TID251 - real time is what this is about

    answer = exchange(served, *pieces, pause=0.05)

    assert b"HTTP/1.1 408 Request Timeout\r\n" in answer
    assert b"the request's head did not arrive within 0.3 s" in answer
    assert time.monotonic() - began < 3  # noqa: TID251


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"x-a: bbbbbbbb\r\n" * 20_000, id="many headers"),
        pytest.param(b"x-a: " + b"b" * 300_000, id="one header"),
    ],
)
def test_an_endless_head_is_refused_and_not_collected(served: Served, endless: bytes) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n")
        with contextlib.suppress(ConnectionError):  # it hangs up while we still talk
            for _ in range(100):
                client.sendall(endless)
            pytest.fail(f"{100 * len(endless):,} bytes of a head were taken")


def test_a_long_body_is_no_long_head(served: Served) -> None:
    body = b'{"max_tokens": 1, "prompt": "' + b"x" * 90_000 + b'"}'
    length = b"content-length: %d" % len(body)
    one = post(body, length)
    last = post(body, length, b"connection: close")

    answer = exchange(served, one, last, pause=0.05)

    assert answer.count(b"HTTP/1.1 200 ") == 2


def test_the_end_of_a_long_body_is_no_long_head(served: Served) -> None:
    body = b'{"max_tokens": 1, "prompt": "' + b"x" * 95_000 + b'"}'
    head = post(b"", b"content-length: %d" % len(body), b"connection: close")

    for _ in range(5):  # how much of it comes at once is up to the kernel
        assert exchange(served, head, body, pause=0.02).startswith(b"HTTP/1.1 200 ")


def test_a_length_of_thousands_of_digits_is_a_length(served: Served) -> None:
    padded = b"content-length: " + b"0" * 6000 + b"%d" % len(BODY)

    answer = exchange(served, post(BODY, padded, b"connection: close"))

    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))


def test_nonsense_behind_a_running_request_is_not_answered_inside_its_answer(
    served: Served,
) -> None:
    body = b'{"prompt": "a", "max_tokens": 300, "stream": true}'
    request = post(body, b"content-length: %d" % len(body))

    answer = exchange(served, request, b"GARBAGE\r\n\r\n", pause=0.2)

    ours, _, after_it = answer.partition(b"\r\n0\r\n\r\n")  # httptools sees it before, h11 after
    assert ours.count(b"HTTP/1.1 ") == 1
    assert after_it == b"" or after_it.startswith(b"HTTP/1.1 400 ")


def test_a_connection_that_says_nothing_is_closed(served: Served) -> None:
    assert exchange(served) == b""


def test_half_a_body_is_408_and_the_connection_is_closed(served: Served) -> None:
    answer = exchange(served, post(BODY[:10], LENGTH))

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close\r\n" in answer.lower()
    assert b"10 bytes of it did" in answer


def test_a_body_over_the_limit_is_413_and_not_read(served: Served) -> None:
    declared = exchange(served, post(b"", b"content-length: 100001"))
    chunked = exchange(
        served, post(b"c351\r\n" + b"x" * 50_001 + b"\r\n", b"transfer-encoding: chunked"),
        b"c351\r\n" + b"x" * 50_001 + b"\r\n",
    )  # fmt: skip

    for answer in (declared, chunked):
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close\r\n" in answer.lower()


def test_a_client_that_waits_for_continue_gets_it_or_its_error(served: Served) -> None:
    expects = b"expect: 100-continue"

    told = exchange(served, post(b"", LENGTH, expects, b"connection: close"), BODY, pause=0.1)
    refused = exchange(served, post(b"", b"content-length: 100001", expects))

    assert told.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 413 ")


def test_requests_that_come_at_once_are_answered_in_order(served: Served) -> None:
    one = post(BODY, LENGTH, b"x-request-id: one")
    two = post(BODY, LENGTH, b"x-request-id: two", b"connection: close")

    answer = exchange(served, one + two)

    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert answer.index(b'"id":"one"') < answer.index(b'"id":"two"')


def test_two_ids_are_no_id(served: Served) -> None:
    ids = b"x-request-id: one", b"x-request-id: two"

    answer = exchange(served, post(BODY, LENGTH, *ids, b"connection: close"))

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"id":"one"' not in answer


@pytest.mark.parametrize("how", [Leave.FIN, Leave.RST])
async def test_a_client_that_leaves_a_real_socket_stops_the_engine(
    served: Served, how: Leave
) -> None:
    body = {"prompt": "a b c", "max_tokens": 100_000, "stream": True}
    mine = {"x-request-id": f"cut-{how}".replace(" ", "-").lower()[:60]}
    async with open_request("POST", f"{served.url}/generate", json=body, headers=mine) as client:
        await client.read_head()
        await client.read_chunk()
        await client.leave(how)

    account = await anyio.to_thread.run_sync(ended, served, mine["x-request-id"])
    assert (account["phase"], account["reason"]) == ("cancelled", "client_disconnect")
    assert account["proof"] == "observed"
    assert account["told_after"] < 0.05
    assert account["proved_after"] < 0.5
    assert account["tokens"] == account["delivered"] + account["undelivered"]


def ended(served: Served, request_id: str) -> dict:
    """Wait until a request has ended; there is no event for it across processes."""
    deadline = time.monotonic() + LIMIT  # noqa: TID251
    while time.monotonic() < deadline:  # noqa: TID251
        account = served.get(f"/v1/requests/{request_id}")
        if account["phase"] in {"finished", "cancelled", "failed", "quarantined"}:
            return account
        time.sleep(0.01)  # noqa: TID251
    raise AssertionError(f"it did not end: {account}")


# -- the end -----------------------------------------------------------------------------------


async def test_sigterm_drains_and_the_exit_status_is_0() -> None:
    with serving("--drain-grace", "0.5", "--access-log", "json") as served:
        body = {"prompt": "a", "max_tokens": 100_000, "stream": True}
        accept = {"accept": "text/event-stream", "x-request-id": "cut"}
        async with open_request(
            "POST", f"{served.url}/generate", json=body, headers=accept
        ) as client:
            await client.read_head()
            served.signal()
            refused = await anyio.to_thread.run_sync(refusal, served)
            rest = b""
            while chunk := await client.read_chunk():
                rest += chunk
        status, log = await anyio.to_thread.run_sync(served.wait)

    assert status == 0
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert b'event: error\r\ndata: {"error":{"type":"cancelled"' in rest
    assert b'"reason":"drain"' in rest
    lines = {line["id"]: line for line in access_lines(log)}
    assert (lines["cut"]["reason"], lines["cut"]["proof"]) == ("drain", "observed")
    assert "Traceback" not in log


def refusal(served: Served) -> httpx.Response:
    """Ask until the signal has been heard."""
    while (answer := served.generate(max_tokens=1)).status_code == 200:
        pass
    return answer


async def test_a_second_signal_ends_the_grace() -> None:
    with serving("--drain-grace", "1000") as served:
        body = {"prompt": "a", "max_tokens": 100_000, "stream": True}
        async with open_request("POST", f"{served.url}/generate", json=body) as client:
            await client.read_head()
            served.signal(signal.SIGINT)
            await anyio.to_thread.run_sync(refusal, served)
            served.signal(signal.SIGINT)
            status, log = await anyio.to_thread.run_sync(served.wait)

    assert status == 0
    assert "reason=drain" in log
    assert "Traceback" not in log


async def test_a_third_signal_ends_the_process() -> None:
    with serving("--drain-grace", "1000", step_ms=60_000, lie="ignore_abort") as served:
        body = {"prompt": "a", "max_tokens": 100_000}
        async with open_request("POST", f"{served.url}/generate", json=body):
            await anyio.to_thread.run_sync(busy, served)
            for _ in range(3):
                served.signal(signal.SIGINT)
                await anyio.sleep(0.2)
            status, _ = await anyio.to_thread.run_sync(served.wait)

    assert status == 1


def busy(served: Served) -> None:
    while not served.get("/v1/requests")["requests"]:
        pass


def test_an_idle_server_starts_and_ends_fast_also_with_open_connections() -> None:
    began = time.monotonic()  # noqa: TID251
    with serving() as served, httpx.Client(base_url=served.url) as client:
        assert time.monotonic() - began < 5  # noqa: TID251 - 0.5 s on a machine that is idle
        client.get("/health/live")
        served.signal()

        status, log = served.wait()

    assert status == 0
    assert "Traceback" not in log


async def test_a_crowd_on_real_sockets_leaves_balanced_books_and_no_traceback() -> None:
    with serving("--access-log", "json", step_ms=1, slots=4) as served:
        url = f"{served.url}/generate"

        async def one(number: int) -> None:
            body = {"prompt": "a b", "max_tokens": 20 + number, "stream": number % 2 == 0}
            async with open_request("POST", url, json=body) as client:
                if number % 3 == 0:
                    await anyio.sleep(number / 1000)
                    await client.leave(Leave.RST if number % 2 else Leave.FIN)
                    return
                while await client.read_chunk():
                    pass

        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(one, number)
        served.signal()
        status, log = await anyio.to_thread.run_sync(served.wait)

    lines = [line for line in access_lines(log) if line["path"] == "/generate"]
    assert status == 0
    assert len(lines) == 60
    assert {line["status"] for line in lines} <= {200, 499}
    assert sum(line["status"] == 499 for line in lines) >= 10
    assert "Traceback" not in log
    assert "do not balance" not in log


def test_a_request_encoded_by_the_test_kit_is_understood(served: Served) -> None:
    request = encode_request("GET", "/health/live", host="x", headers={"connection": "close"})

    assert exchange(served, request).startswith(b"HTTP/1.1 200 ")
