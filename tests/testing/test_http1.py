"""HTTP/1.1 as bytes: what is written, and what is read wherever the bytes are cut."""

import pytest

from streamkit.testing import BadResponse, ResponseReader, encode_request

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\nA;x=1\r\n 16 bytes!\r\n0\r\nTrailer: x\r\n\r\n"
)
SIZED = b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone"
OPEN_ENDED = b"HTTP/1.0 200 OK\r\n\r\nbytes"


def read(data: bytes, size: int = 10_000, method: str = "GET") -> ResponseReader:
    reader = ResponseReader(method)
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
    return reader


@pytest.mark.parametrize("size", [1, 2, 3, 10, 10_000])
def test_chunks_come_out_as_the_server_framed_them(size: int):
    reader = read(CHUNKED, size)

    assert reader.head is not None
    assert (reader.head.status, reader.head.headers["content-type"]) == (200, "text/plain")
    assert list(reader.chunks) == [b"hello", b" 16 bytes!"]
    assert reader.finished


@pytest.mark.parametrize("size", [1, 10_000])
def test_a_content_length_ends_the_body(size: int):
    reader = read(SIZED, size)

    assert b"".join(reader.chunks) == b"gone"
    assert reader.finished
    reader.close(cleanly=False)
    assert reader.finished


@pytest.mark.parametrize(
    ("data", "cleanly", "finished"),
    [
        pytest.param(CHUNKED[:-4], True, False, id="chunked, no end"),
        pytest.param(SIZED[:-1], True, False, id="sized, one byte short"),
        pytest.param(OPEN_ENDED, True, True, id="no length, closed"),
        pytest.param(OPEN_ENDED, False, False, id="no length, reset"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", True, False, id="head cut"),
    ],
)
def test_a_cut_body_is_not_finished(data: bytes, cleanly: bool, finished: bool):
    reader = read(data)
    assert not reader.finished

    reader.close(cleanly=cleanly)

    assert reader.finished is finished


@pytest.mark.parametrize(
    ("method", "first_line"),
    [("HEAD", b"200 OK"), ("GET", b"204 No Content"), ("GET", b"304 Not Modified")],
)
def test_a_response_without_a_body_ends_with_its_head(method: str, first_line: bytes):
    assert read(
        b"HTTP/1.1 " + first_line + b"\r\ncontent-length: 4\r\n\r\n", method=method
    ).finished


def test_an_empty_body_is_finished():
    assert read(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").finished


def test_interim_responses_are_skipped():
    reader = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\na: b\r\n\r\n" + SIZED)

    assert reader.head is not None
    assert reader.head.status == 404


def test_the_next_response_begins_where_the_last_one_ended():
    reader = read(SIZED + CHUNKED)
    assert reader.finished
    assert repr(reader) == "<ResponseReader 404, finished, 1 chunks waiting>"

    reader.begin("GET")

    assert list(reader.chunks) == [b"hello", b" 16 bytes!"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"HTTP/2 whatever\r\n\r\n", "the first line of a response"),
        (b"\x00\x00\r\n\r\n", "the first line of a response"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxx\r\n", "the size of a chunk"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc", "chunk of 1 bytes"),
    ],
)
def test_what_is_no_response_is_an_error(data: bytes, problem: str):
    with pytest.raises(BadResponse, match=problem):
        read(data)


def test_a_request_is_written_with_its_length():
    assert encode_request("POST", "/x", json={"n": 1}, headers={"X-Id": "7"}) == (
        b"POST /x HTTP/1.1\r\nhost: testserver\r\ncontent-type: application/json\r\n"
        b'content-length: 8\r\nx-id: 7\r\n\r\n{"n": 1}'
    )
    assert encode_request("GET", "/", host="h:80") == b"GET / HTTP/1.1\r\nhost: h:80\r\n\r\n"
    assert b"content-length: 0\r\n" in encode_request("POST", "/")
