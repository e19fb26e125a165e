"""``streamkit serve --engine transformers``, both kinds: clients that leave, and OpenAI's."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from benchmarks.vllm_close_to_stopped import IDLE_LIMIT, free_port, get, started, wait_ready
from streamkit import cancellable
from streamkit.asgi import CancellationMiddleware, EventStream
from streamkit.engines import EngineStatistics, TransformersEngine

from .conftest import CACHE
from .test_engine import LONG, LayerCount, by_hand, hooks_in

ROOT = Path(__file__).parents[3]
TOKENS = 4000  # of an answer that nobody waits for
PROOF = {"thread": "joined", "continuous": "observed"}


@pytest.fixture(scope="module")
def ports(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """A server of each kind, and the example; all start at once."""
    logs = tmp_path_factory.mktemp("servers")
    serve = ["streamkit.server.cli", "serve", "--engine", "transformers"]
    serve += [f"--engine-option=model={folder}"]
    batch = ["--engine-option=batching=continuous", "--engine-option=slots=4"]
    batch += [f"--engine-option=batch_args={json.dumps(CACHE)}"]
    example = ["streamkit.server.cli", "serve", str(ROOT / "examples/transformers/model.py")]
    commands = {"thread": serve, "continuous": [*serve, *batch], "example": example}
    numbers = {name: free_port() for name in commands}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("MODEL", str(folder))
        running = {
            name: stack.enter_context(
                started(*command, "--port", str(numbers[name]), log=logs / f"{name}.log")
            )
            for name, command in commands.items()
        }
        for name, process in running.items():
            wait_ready(process, numbers[name], "/health/ready", logs / f"{name}.log")
        yield numbers


def wait_for(port: int, path: str, **expected: object) -> dict[str, Any]:
    limit = time.perf_counter() + IDLE_LIMIT
    while True:
        seen: dict[str, Any] = json.loads(get(port, path))
        if expected.items() <= seen.items():
            return seen
        assert time.perf_counter() < limit, seen


def post(path: str, request_id: str, **body: object) -> bytes:
    text = json.dumps(body)
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-request-id: {request_id}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n{text}"
    ).encode()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", ["w", LONG], ids=["decode", "prefill"])
@pytest.mark.parametrize("kind", ["thread", "continuous"])
def test_a_client_that_leaves_stops_the_engine(
    ports: dict[str, int], kind: str, prompt: str, stream: bool
) -> None:
    port, name = ports[kind], f"left-{len(prompt)}-{stream}"
    before = wait_for(port, "/v1/engine", running=0, queued=0)["tokens"]
    with socket.create_connection(("127.0.0.1", port), IDLE_LIMIT) as client:
        client.sendall(post("/generate", name, prompt=prompt, max_tokens=TOKENS, stream=stream))
        wait_for(port, "/v1/engine", running=1)

    books = wait_for(port, "/v1/engine", running=0, queued=0)
    assert books["tokens"] - before < TOKENS / 2
    record = wait_for(port, f"/v1/requests/{name}", proof=PROOF[kind])
    assert record["reason"] == "client_disconnect"
    assert (books["quarantined"], books["failure"]) == (0, None)


@pytest.mark.parametrize("kind", ["thread", "continuous"])
def test_openais_client_gets_the_text_of_generate_and_its_early_exit_stops_it(
    ports: dict[str, int], kind: str, model: Any, tokenizer: Any
) -> None:
    port = ports[kind]
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-", max_retries=0)
    ask: dict[str, Any] = {"model": "transformers", "prompt": "say it"}
    expected = by_hand(model, tokenizer, "say it", 30, do_sample=False)

    whole = client.completions.create(max_tokens=30, **ask)
    with client.completions.create(max_tokens=30, stream=True, **ask) as pieces:
        streamed = "".join(piece.choices[0].text for piece in pieces)
    with client.completions.create(max_tokens=TOKENS, stream=True, **ask) as pieces:
        next(iter(pieces))
        wait_for(port, "/v1/engine", running=1)

    assert whole.choices[0].text == streamed == expected
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (6, 30)
    assert wait_for(port, "/v1/engine", running=0, queued=0)["tokens"] < TOKENS
    client.close()


def test_what_the_engine_does_not_have_is_400_and_named(ports: dict[str, int]) -> None:
    for kind, option in (("thread", "presence_penalty"), ("continuous", "temperature")):
        url, ask = f"http://127.0.0.1:{ports[kind]}/v1", {"prompt": "w", option: 0.5}
        with (
            openai.OpenAI(base_url=url, api_key="-", max_retries=0) as client,
            pytest.raises(openai.BadRequestError, match=option),
        ):
            client.completions.create(model="transformers", **ask)  # type: ignore[call-overload]


def test_the_example_stops_when_its_client_leaves(ports: dict[str, int]) -> None:
    port = ports["example"]
    with socket.create_connection(("127.0.0.1", port), IDLE_LIMIT) as client:
        client.sendall(post("/predict", "left", prompt="hello", max_tokens=TOKENS))
        assert client.recv(1000)

    books = wait_for(port, "/v1/requests/left", reason="client_disconnect", proof="joined")
    assert books["tokens"] < TOKENS / 2


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(IDLE_LIMIT):
        while not true():  # noqa: ASYNC110 - threads and books have no event
            await anyio.sleep(0.001)


def books_of(engine: TransformersEngine) -> EngineStatistics:
    books = engine.statistics()
    assert books is not None
    return books


async def test_a_client_that_leaves_in_a_prefill_of_4000_tokens_stops_it_within_two_layers(
    engine: TransformersEngine, model: Any
) -> None:
    @cancellable(engine)
    async def answer() -> Any:
        async for chunk in engine.generate(LONG, max_tokens=5):
            yield chunk.text

    async def chat(_: Request) -> EventStream:
        return EventStream(answer())

    app = CancellationMiddleware(Starlette(routes=[Route("/chat", chat, methods=["POST"])]))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_level="warning"))
    with LayerCount(model) as count:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            await until(lambda: server.started)
            client = await anyio.connect_tcp("127.0.0.1", port)
            await client.send(post("/chat", "left"))
            await until(lambda: count.begun >= 2)
            at = count.begun
            await client.aclose()
            await until(lambda: books_of(engine).running == 0)
            server.should_exit = True

    assert count.begun <= at + 2 < len(count.layers)
    assert books_of(engine).tokens == 0
    assert hooks_in(model) == 0
