"""The rules of Truss's server, row by row, as a client of `streamkit serve` sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.server.serving import LIMIT, NO_TLS, run, serving

pytestmark = pytest.mark.realtime

PREDICT = "/v1/models/model:predict"
SERVED = (
    "Model",
    "Validated",
    "RequestOnly",
    "Preprocessed",
    "Nothing",
    "Staged",
    "Generators",
    "Postprocessed",
    "AsyncLoad",
    "OnlyCompletions",
    "Echo",
)
BINARY = {"content-type": "application/octet-stream"}
JSON = "application/json"
RAW = "application/octet-stream"
FIXED = {"error": "Internal Server Error (in model/chainlet)."}
NOT_READY = {"error": "Model with name model is not ready."}


@dataclass
class Row:
    """One request, and its answer."""

    model: str
    body: Any
    status: int
    answer: Any  # bytes as they are, or the value of the JSON, or a part of the text of an error
    headers: dict[str, str] = field(default_factory=dict)  # of the request
    path: str = PREDICT
    method: str = "POST"
    says: dict[str, str | None] = field(default_factory=dict)  # headers of the answer

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def do(what: str, status: int, answer: Any, **more: Any) -> Row:
    return Row("Model", {"do": what}, status, answer, **more)


def error(code: str | None) -> dict[str, str | None]:
    return {"x-baseten-error-code": code, "x-baseten-error-source": "04" if code else None}


MINE, CLIENTS, OURS = error("600"), error("700"), error("500")
INVALID = "Invalid JSON payload"

PAYLOADS = {
    "any value": Row("Model", [1, "ä", None], 200, [1, "ä", None]),
    "no content type": Row("Model", 5, 200, 5, {"content-type": "text/plain"}),
    "UTF-16": Row("Model", json.dumps({"a": "ä"}).encode("utf-16"), 200, {"a": "ä"}),
    "a byte order mark": Row("Model", b"\xef\xbb\xbf[1]", 200, [1]),
    "no JSON": Row("Model", b"{", 400, INVALID, says=CLIENTS),
    "nothing": Row("Model", b"", 400, INVALID, says=CLIENTS),
    "no text": Row("Model", b'"\xff"', 400, INVALID, says=CLIENTS),
    "too deep": Row("Model", b"[" * 100_000, 400, "", says=CLIENTS),
    "too many digits": Row("Model", b"1" * 5000, 400, INVALID, says=CLIENTS),
    "msgpack": Row(
        "Model", msgpack.packb({"a": b"\xff"}), 200, msgpack.packb({"a": b"\xff"}), BINARY
    ),
    "msgpack with parameters": Row(
        "Model", msgpack.packb(1), 200, msgpack.packb(1), {"content-type": f"{RAW.upper()}; v=1"}
    ),
    "no msgpack": Row("Model", b"\xc1", 400, "", BINARY, says=CLIENTS),
    "the path for binary alone": Row("Model", 1, 200, 1, path=f"{PREDICT}_binary"),
    "bytes for msgpack": Row("Model", msgpack.packb({"do": "bytes"}), 200, b"\x00\xff", BINARY),
    "what is valid": Row("Validated", {"items": [{"v": 1}, {"v": "2"}]}, 200, [1, 2]),
    "what is not": Row(
        "Validated", {"items": [{"v": 1}, {"v": "x"}]}, 400, "`items[1].v`: ", says=CLIENTS
    ),
    "what is no JSON either": Row("Validated", b"{", 400, "Input Parsing Error", says=CLIENTS),
    "no stage needs it": Row("RequestOnly", b"\xff", 200, "ÿ"),
    "only a request is needed": Row("Preprocessed", b"\xe4", 200, "Ä"),  # Truss: 400
    "nobody needs anything": Row("Nothing", b"\xff", 200, "from nothing"),  # Truss: 400
    "an annotated method of its own": Row(
        "Model", {"v": "x"}, 400, "`v`: ", path="/v1/chat/completions", says=CLIENTS
    ),  # Truss: not looked at
    "a method that needs none": Row(
        "Model", b"{", 200, "/v1/completions", path="/v1/completions"
    ),  # Truss: 400
}
KINDS = {
    "function": do("echo", 200, {"do": "echo"}),
    "function on a thread": do("thread", 200, False),
    "coroutine on the loop": do("coroutine", 200, True),
    "generator": do("generator", 200, b"one two", says={"content-type": RAW}),
    "async generator": do("async_generator", 200, b"one two", says={"content-type": RAW}),
    "joined": do(
        "generator", 200, "one two", headers={"accept": JSON}, says={"content-type": JSON}
    ),
    "joined for openai": do(
        "generator", 200, b"one two", headers={"accept": JSON, "user-agent": "OpenAI/Python"}
    ),
    "an iterator of an engine": do("iterator", 200, b"one two"),  # Truss: 500
    "one request and one context for all stages": Row("Staged", 1, 200, [1, "preprocess", 1]),
    "a sync wrapper around a coroutine": Row(
        "OnlyCompletions", 1, 200, [1, "POST"], path="/v1/chat/completions"
    ),  # Truss: 500
    "a request by name alone is none": Row("OnlyCompletions", 1, 200, 1, path="/v1/embeddings"),
    "stars": Row("OnlyCompletions", 1, 200, [1], path="/v1/messages"),
    "double stars": Row("OnlyCompletions", 1, 500, FIXED, path="/v1/responses", says=MINE),
    "chunks that are no text": do("numbers", 500, FIXED, says=MINE),
    "generators before and behind": Row("Generators", 4, 200, b"6 end"),
    "a stage behind a stream": Row("Postprocessed", "in", 500, FIXED, says=MINE),
    "an async load": Row("AsyncLoad", "in", 200, True),  # Truss: false
}
RESULTS = {
    "escaped": do("echo", 200, b'{"do": "echo"}', says={"content-type": JSON}),
    "not a number": do("nan", 200, b"NaN"),
    "a pydantic model": do("pydantic", 200, {"v": 1, "name": "none"}),
    "a root model": do("root", 200, [1, 2]),
    "a class of the file": do("pickled", 200, 7),
    "numpy": do("numpy", 200, {"a": [[0, 1], [2, 3]], "b": 0.5}),
    "a model inside of others": do("nested", 500, "Unhandled exception: TypeError", says=OURS),
    "a time": do("datetime", 500, "Unhandled exception: TypeError", says=OURS),
    "a set": do("set", 500, "Unhandled exception: TypeError", says=OURS),
    "bytes": do("bytes", 500, "Unhandled exception: TypeError", says=OURS),
    "a response": do("response", 200, b"mine", says={"x-mine": "yes", **error(None)}),
    "a response of 300 and above": do("error_response", 422, {"my": "error"}, says=CLIENTS),
    "a response without a body": do("no_content", 204, b""),
    "a streaming response": do(
        "streaming_response", 200, b"one two", says={"content-type": "text/x-mine; charset=utf-8"}
    ),
}
ERRORS = {
    "an exception": do("value_error", 500, FIXED, says=MINE),
    "FastAPI's": do(
        "fastapi_error", 418, {"error": {"a": "teapot"}}, says={"x-kettle": "on", **MINE}
    ),
    "Starlette's": do("starlette_error", 409, {"error": "conflict"}, says=MINE),  # Truss: 500
    "with a number": do("number_error", 400, {"error": 5}, says=MINE),  # Truss: 500
    "before the first chunk": do("early_error", 402, {"error": "pay first"}, says=MINE),  # 200
    "in a joined stream": do("late_error", 500, FIXED, headers={"accept": JSON}, says=MINE),
    "no such method": Row(
        "Model", {}, 404, "`embeddings` must only be called if model has it.",
        path="/v1/embeddings", says=CLIENTS,
    ),
    "no predict": Row(
        "OnlyCompletions", {}, 404, "`predict` must only be called if model has it.", says=CLIENTS
    ),
    "an unknown path": Row("Model", {}, 404, "", path="/v2/nothing", says=error(None)),
    "the wrong verb": Row("Model", b"", 405, "", path="/predict", method="PUT", says=error(None)),
    "the wrong verb where two paths meet": Row(
        "Model", b"", 405, "this path takes GET, HEAD, POST", path=PREDICT, method="PUT",
        says={"allow": "GET, HEAD, POST"},
    ),
}  # fmt: skip
ROUTES = {
    "the root": Row("Model", b"", 200, True, path="/", method="GET"),
    "ready": Row("Validated", b"", 200, {}, path="/v1/models/any", method="GET"),
    "not healthy": Row(
        "Model", b"", 503, NOT_READY, path="/v1/models/any", method="GET", says=MINE
    ),
    "not healthy, and breaking": Row(
        "RequestOnly", b"", 503, NOT_READY, path="/v1/models/any", method="GET", says=MINE
    ),
    "no word on its health": Row("Nothing", b"", 200, {}, path="/v1/models/any", method="GET"),
    "not healthy and served": Row("RequestOnly", b"x", 200, "x"),
    "not healthy and loaded": Row("Model", b"", 200, {}, path="/v1/models/a/loaded", method="GET"),
    "ready by another name": Row("Validated", b"", 200, {}, path=PREDICT, method="GET"),
    "no schema": Row("RequestOnly", b"", 404, "", path="/v1/models/any/schema", method="GET"),
    "SageMaker's ping": Row("Model", b"", 200, {}, path="/ping", method="GET"),
    "SageMaker's invocations": Row("Validated", {"items": []}, 200, [], path="/invocations"),
    "our own": Row("Validated", {"items": []}, 200, [], path="/predict"),
    "completions alone": Row(
        "OnlyCompletions", [1], 200, [1], path="/v1/completions"
    ),  # Truss: not loaded
    "nothing is reloaded": Row("Model", {}, 404, "", path="/hot-reload"),
    "an id of Baseten's is not echoed": do(
        "echo",
        200,
        {"do": "echo"},
        headers={"x-baseten-request-id": "mine"},
        says={"x-baseten-request-id": None},
    ),
    "chat": Row("Model", {"v": 3}, 200, {"v": 3}, path="/v1/chat/completions"),
}
LOAD_ERRORS: dict[str, tuple[str, ...]] = {
    "EveryReason": (
        "EveryReason.preprocess(request, inputs): it is not allowed to have request as first",
        "request must be second: let `request` and `inputs` change places",
        "EveryReason.predict(inputs, connection): with two arguments it must have request as",
        "second argument (type annotated), and `connection` is annotated",
        "EveryReason.postprocess(result, **more): with two arguments it must have request",
        "EveryReason.completions(inputs, request, more): it cannot have more than two arguments",
        "EveryReason.chat_completions(x, request): with two arguments it must have request",
        "EveryReason.embeddings(inputs, temperature): with two arguments it must have request",
        "EveryReason.messages is None",
        "EveryReason.responses(*args, **kwargs): with two arguments it must have request",
        "have that use functools.wraps",
        "`is_healthy` must have only one argument: `self`",
    ),
    "BadCompany": (
        "BadCompany.predict(request): with a `preprocess` it cannot only have the request argument",
        "The `postprocess` method cannot only have the request",
        "cannot have both",
        "must have only one argument: `websocket`",
        "must be async function definitions",
    ),
    "NoMethod": ("must have a `predict` or `websocket` method",),
    "LoadFails": ("ValueError: no weights here",),
}


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[str, httpx.Client]]:
    """One for each class, started side by side."""
    with ExitStack() as stack, ThreadPoolExecutor(max_workers=2) as threads:
        contexts = {name: serving(f"tests.server.model.models.rows:{name}") for name in SERVED}
        started = threads.map(stack.enter_context, contexts.values())
        yield {
            name: stack.enter_context(
                httpx.Client(base_url=served.url, timeout=LIMIT, verify=NO_TLS)
            )
            for name, served in zip(SERVED, started, strict=True)
        }


def check(processes: dict[str, httpx.Client], row: Row) -> None:
    answer = processes[row.model].request(
        row.method, row.path, content=row.content, headers=row.headers
    )

    assert answer.status_code == row.status, answer.text
    if isinstance(row.answer, bytes):
        assert answer.content == row.answer
    elif row.status >= 400 and isinstance(row.answer, str):
        assert row.answer in answer.text
        assert "error" in answer.json()
    else:
        assert answer.json() == row.answer
    assert {name: answer.headers.get(name) for name in row.says} == row.says


@pytest.mark.parametrize("row", PAYLOADS)
def test_what_a_body_may_be(processes: dict[str, httpx.Client], row: str) -> None:
    check(processes, PAYLOADS[row])


@pytest.mark.parametrize("row", KINDS)
def test_what_a_stage_may_be(processes: dict[str, httpx.Client], row: str) -> None:
    check(processes, KINDS[row])


@pytest.mark.parametrize("row", RESULTS)
def test_what_a_result_may_be(processes: dict[str, httpx.Client], row: str) -> None:
    check(processes, RESULTS[row])


@pytest.mark.parametrize("row", ERRORS)
def test_how_an_error_is_told(processes: dict[str, httpx.Client], row: str) -> None:
    check(processes, ERRORS[row])


@pytest.mark.parametrize("row", ROUTES)
def test_which_paths_there_are(processes: dict[str, httpx.Client], row: str) -> None:
    check(processes, ROUTES[row])


def test_paths_that_answer_at_length(processes: dict[str, httpx.Client]) -> None:
    schema = processes["Validated"].get("/v1/models/any/schema").json()
    metrics = processes["Model"].get("/metrics/")

    assert schema["input_schema"]["title"] == "Items"
    assert metrics.text.startswith("# HELP ")


@pytest.mark.parametrize(
    ("model", "says", "code", "reason"),
    [
        ("Echo", "hello", 1000, ""),
        ("Echo", "break", 1011, FIXED["error"]),
        ("Model", "hello", 1003, "WebSocket is not implemented on this deployment."),
    ],
)
def test_a_websocket_is_accepted_and_closed_with_its_code(
    processes: dict[str, httpx.Client], model: str, says: str, code: int, reason: str
) -> None:
    url = str(processes[model].base_url.join("/v1/websocket").copy_with(scheme="ws"))
    heard: list[str | bytes] = []
    with connect(url, open_timeout=LIMIT) as websocket, suppress(ConnectionClosed):
        websocket.send(says)
        for message in websocket:
            heard.append(message)  # noqa: PERF402 - it may break off

    closed = websocket.protocol
    assert (closed.close_code, closed.close_reason) == (code, reason)
    assert heard == ([says] if code == 1000 else [])


def test_an_error_in_a_stream_ends_it_uncleanly(processes: dict[str, httpx.Client]) -> None:
    with pytest.raises(httpx.RemoteProtocolError):  # Truss: a clean end
        processes["Model"].post(PREDICT, json={"do": "late_error"})


@pytest.mark.parametrize("name", LOAD_ERRORS)
def test_what_cannot_be_served_is_told_and_exit_status_1(name: str) -> None:
    target = f"tests.server.model.models.rows:{name}"
    ended = run("serve", "--port", "0", target, NUM_LOAD_RETRIES_TRUSS="0")

    assert ended.returncode == 1
    said = " ".join(ended.stderr.split())
    assert [reason for reason in LOAD_ERRORS[name] if reason not in said] == []
    assert ended.stdout == ""
    assert ended.stderr.count("Traceback") == (name == "LoadFails")
