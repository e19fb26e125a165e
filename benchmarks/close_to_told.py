"""How long from a client's close to the engine being told: ours against a listener by hand.

``python benchmarks/close_to_told.py`` starts uvicorn, once with each of its parsers, and lets
clients leave in the middle of streams. Each asks one of two apps over the same engine, in turn:

* ours: ``CancellationMiddleware`` and ``EventStream(engine.generate(…))``;
* bare: an ASGI app that parks on ``receive()`` itself and cancels the generation by hand, which is
  the least that any app has to do.

The client stamps the clock just before its ``shutdown()``; the engine's own log says when the abort
arrived. Client and server are processes of one machine, so that the clock is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

import anyio
from starlette.types import Receive, Scope, Send

from streamkit import Cancellation, Reason, cancellable
from streamkit.asgi import CancellationMiddleware, EventStream
from streamkit.engines import FakeEngine, Generation, GenerationRequest
from streamkit.testing import Leave, open_request

ROOT = Path(__file__).parents[1]
LIMIT = 1.5  # what the ratio of the medians may be
engine = FakeEngine(slots=64, step_ms=10)


def generation_of(scope: Scope) -> Generation:
    request_id = parse_qs(scope["query_string"].decode())["id"][0]
    return engine.open(GenerationRequest(prompt="a", max_tokens=10_000), request_id=request_id)


# -- the two apps --------------------------------------------------------------------------------


async def _ours(scope: Scope, receive: Receive, send: Send) -> None:
    @cancellable(engine)
    async def generate():
        async for chunk in generation_of(scope):
            yield chunk.text

    await EventStream(generate())(scope, receive, send)


ours = CancellationMiddleware(_ours)


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    generation = generation_of(scope)

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        now = asyncio.get_running_loop().time()
        generation.cancel(Cancellation(reason=Reason.CLIENT_DISCONNECT, at=now))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for chunk in generation:
            data = f"data: {chunk.text}\r\n\r\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        tasks.cancel_scope.cancel()


async def told(scope: Scope, receive: Receive, send: Send) -> None:
    """When the engine was told to abort that request; waits for it."""
    request_id = parse_qs(scope["query_string"].decode())["id"][0]
    while True:
        record = engine.log.request(request_id)
        if record is not None and record.told_at is not None:
            break
        await anyio.sleep(0.001)
    body = json.dumps(record.told_at).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await {"/ours": ours, "/bare": bare, "/told": told}[scope["path"]](scope, receive, send)


# -- the clients ---------------------------------------------------------------------------------


async def measure(url: str, kind: str, request_id: str) -> float:
    """Milliseconds from the close to the engine being told."""
    async with open_request("GET", f"{url}/{kind}?id={request_id}") as client:
        await client.read_chunk()
        # Somewhere between two tokens: right behind one, the server is still awake from sending it.
        await anyio.sleep(random.uniform(0.001, 0.008))
        await client.leave(Leave.FIN)
    assert client.left_at is not None
    closing = {"connection": "close"}
    async with open_request("GET", f"{url}/told?id={request_id}", headers=closing) as asking:
        return 1_000 * (json.loads(await asking.read_body()) - client.left_at)


async def round_of(url: str, number: int, runs: int) -> dict[str, list[float]]:
    """A B A B …, so that whatever else the machine does falls on both."""
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for run in range(runs):
        for kind, list_ in times.items():
            list_.append(await measure(url, kind, f"{number}-{run}-{kind}"))
    return times


@contextmanager
def uvicorn(parser: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # asyncio, whose clock is time.monotonic(); uvloop's counts whole milliseconds.
        options = ["--http", parser, "--loop", "asyncio", "--log-level", "error"]
        options += ["--no-access-log", "--fd", str(listener.fileno())]
        command = [sys.executable, "-m", "uvicorn", *options, "benchmarks.close_to_told:app"]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[listener.fileno()])
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


async def compare(parser: str, rounds: int, runs: int) -> float:
    with uvicorn(parser) as url:
        await round_of(url, -1, 20)  # warm
        results = [await round_of(url, number, runs) for number in range(rounds)]
    medians = {
        kind: [statistics.median(times[kind]) for times in results] for kind in ("bare", "ours")
    }
    for kind, each in medians.items():
        p95 = statistics.quantiles([t for times in results for t in times[kind]], n=20)[-1]
        print(f"{parser:9} {kind}: median {show(each, 3)} ms, p95 {p95:.2f} ms")
    ratios = [o / b for o, b in zip(medians["ours"], medians["bare"], strict=True)]
    print(f"{parser:9} ratio: {show(ratios, 2)}")
    return statistics.median(ratios)


def show(rounds: list[float], digits: int) -> str:
    each = ", ".join(f"{value:.{digits}f}" for value in rounds)
    return f"{statistics.median(rounds):.{digits}f} (rounds: {each})"


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=100, help="of each app in each round")
    options = parser.parse_args()
    began = time.perf_counter()
    ratios = [await compare(http, options.rounds, options.runs) for http in ("h11", "httptools")]
    print(f"limit {LIMIT}, took {time.perf_counter() - began:.0f} s")
    return int(max(ratios) > LIMIT)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
