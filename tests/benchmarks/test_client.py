"""The load generator counts whole tokens of whole answers, and nothing else."""

import pytest

from benchmarks.apps.tokens import TOKEN, framed
from benchmarks.client import dechunked, tokens_in

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
