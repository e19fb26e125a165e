"""``streamkit serve --engine vllm`` beside vLLM's own server: leaving stops it, and as fast."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest

from benchmarks.vllm_close_to_stopped import (
    IDLE_LIMIT,
    TOKENS,
    Server,
    both_servers,
    get,
    measure,
    proof_of,
    table,
)
from examples.vllm.tiny import CONTEXT

from .books import kill_core

ROUNDS = 8
STOPPED = 3.0  # seconds, the median at most, on a machine that does other things as well


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    with both_servers(tmp_path_factory.mktemp("servers")) as both:
        yield both


def post(server: Server, path: str, **body: object) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=IDLE_LIMIT)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_leaving_stops_the_engine(
    servers: tuple[Server, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    ours, _ = servers

    samples = measure(*servers, ROUNDS)

    with capsys.disabled():
        print(f"\n{table(samples)}")
    for stream in (True, False):
        assert median(samples["streamkit", stream]) < STOPPED
        proof, proved_after = proof_of(ours, f"round-{ROUNDS}-{stream}")
        assert proof == "fenced"
        assert proved_after < STOPPED
    books = json.loads(get(ours.port, "/v1/engine"))
    assert books["tokens"] < 2 * ROUNDS * TOKENS / 2
    assert (books["quarantined"], books["failure"]) == (0, None)


def test_both_servers_say_the_same(servers: tuple[Server, Server]) -> None:
    body = {"prompt": "say it", "max_tokens": 12, "temperature": 0, "seed": 1}

    said = [post(server, "/v1/completions", model=server.model, **body) for server in servers]

    ours, theirs = (json.loads(text) for _, text in said)
    assert ours["choices"][0]["text"] == theirs["choices"][0]["text"]
    assert ours["choices"][0]["finish_reason"] == theirs["choices"][0]["finish_reason"] == "length"
    for count in ("prompt_tokens", "completion_tokens"):
        assert ours["usage"][count] == theirs["usage"][count]


def test_a_prompt_that_is_too_long_is_400(servers: tuple[Server, Server]) -> None:
    for stream in (True, False):
        status, text = post(servers[0], "/generate", prompt="x" * (CONTEXT + 1), stream=stream)

        assert status == 400
        assert "maximum context length" in text


def test_when_the_core_is_killed_everybody_is_told(servers: tuple[Server, Server]) -> None:
    ours, _ = servers
    with ThreadPoolExecutor() as threads:
        whole = threads.submit(post, ours, "/generate", prompt="w", max_tokens=TOKENS)
        events = threads.submit(read_events, ours)
        while json.loads(get(ours.port, "/v1/engine"))["running"] < 2:
            pass  # each question takes a turn of its loop
        kill_core(ours.pid)
        status, _ = whole.result(IDLE_LIMIT)
        stream = events.result(IDLE_LIMIT)

    assert status == 500
    assert re.search(r"event: error\r?\ndata: .*engine_failed", stream), stream[-300:]
    assert post(ours, "/generate", prompt="w", max_tokens=1)[0] == 503
    assert json.loads(get(ours.port, "/v1/engine"))["failure"] == "EngineDeadError"


def read_events(server: Server) -> str:
    body = json.dumps({"prompt": "w", "max_tokens": TOKENS, "stream": True})
    with socket.create_connection(("127.0.0.1", server.port), IDLE_LIMIT) as client:
        client.sendall(
            "POST /generate HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
            "accept: text/event-stream\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        return b"".join(iter(lambda: client.recv(65_536), b"")).decode()
