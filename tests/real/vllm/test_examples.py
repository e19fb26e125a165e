"""The examples for vLLM answer, and stop when their client leaves."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.vllm_close_to_stopped import IDLE_LIMIT, free_port, get, started, wait_ready
from examples.vllm import tiny

ROOT = Path(__file__).parents[3]
LONG = 4000


@pytest.fixture(scope="module")
def ports(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Both at once: most of a start is one thread of each."""
    folder = tmp_path_factory.mktemp("examples")
    environment = {"MODEL": str(model), "ENGINE_ARGS": json.dumps(tiny.ENGINE_ARGS)}
    numbers = {"model": free_port(), "app": free_port()}
    serve = ["streamkit.server.cli", "serve", str(ROOT / "examples/vllm/model.py"), "--port"]
    uvicorn = ["uvicorn", "--app-dir", str(ROOT / "examples/vllm"), "app:app", "--port"]
    commands = {"model": (serve, "/health/ready"), "app": (uvicorn, "/engine")}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in environment.items():
            patch.setenv(name, value)
        running = {
            name: stack.enter_context(
                started(*command, str(numbers[name]), log=folder / f"{name}.log")
            )
            for name, (command, _) in commands.items()
        }
        for name, (_, path) in commands.items():
            wait_ready(running[name], numbers[name], path, folder / f"{name}.log")
        yield numbers


def request(path: str, body: dict[str, Any]) -> bytes:
    text = json.dumps(body)
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-request-id: left\r\n"
        f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n{text}"
    ).encode()


def ask(port: int, path: str, body: dict[str, Any]) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=IDLE_LIMIT)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, text
    return text


def wait(port: int, path: str, **expected: object) -> dict[str, Any]:
    limit = time.perf_counter() + IDLE_LIMIT
    while True:
        seen: dict[str, Any] = json.loads(get(port, path))
        if expected.items() <= seen.items():
            return seen
        assert time.perf_counter() < limit, seen


def test_the_model_class(ports: dict[str, int]) -> None:
    port = ports["model"]
    assert len(ask(port, "/predict", {"prompt": "hello", "max_tokens": 5})) <= 5

    with socket.create_connection(("127.0.0.1", port), IDLE_LIMIT) as client:
        client.sendall(request("/predict", {"prompt": "hello", "max_tokens": LONG}))
        assert client.recv(1000)

    books = wait(port, "/v1/requests/left", reason="client_disconnect", proof="joined")
    assert books["tokens"] < LONG / 2


def test_the_fastapi_app(ports: dict[str, int]) -> None:
    port = ports["app"]
    assert json.loads(ask(port, "/ask", {"text": "hello", "max_tokens": 5}))["text"]
    assert "event: done" in ask(port, "/chat", {"text": "hello", "max_tokens": 5})

    for path in ("/chat", "/ask"):
        before = wait(port, "/engine", running=0)["tokens"]
        with socket.create_connection(("127.0.0.1", port), IDLE_LIMIT) as client:
            client.sendall(request(path, {"text": "hello", "max_tokens": LONG}))
            wait(port, "/engine", running=1)
        after = wait(port, "/engine", running=0, queued=0)["tokens"]
        assert after - before < LONG / 2
