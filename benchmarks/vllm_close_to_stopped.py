"""From a closed connection to an engine that has stopped: streamkit's server and vLLM's own.

``python -m benchmarks.vllm_close_to_stopped``, with vLLM installed (``make test-engines`` has an
environment). Both serve the same tiny model on the CPU and are asked in turn, so that whatever else
the machine does meets both. Each sample is a completion that is left after its first tokens, as a
stream or as one answer, and the time from ``close()`` until its engine says that it is idle, which
is vLLM's scheduler in both, asked through ``/metrics`` there and ``/v1/engine`` here.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from examples.vllm import tiny

START_LIMIT = 600.0  # seconds; half a minute on an idle machine
IDLE_LIMIT = 30.0
TOKENS = 4000  # of the answer that nobody waits for
MODEL = "tiny"
Samples = dict[tuple[str, bool], list[float]]


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        name: Whose it is.
        port: Where it listens, on 127.0.0.1.
        pid: Its process.
        busy: Sequences that its engine has, by the engine's own word.
        model: What it calls the model.
    """

    name: str
    port: int
    pid: int
    busy: Callable[[int], int]
    model: str

    def wait_busy(self, busy: bool) -> None:
        """Ask until its engine has something to do, or nothing."""
        limit = time.perf_counter() + IDLE_LIMIT
        while (self.busy(self.port) > 0) is not busy:
            if time.perf_counter() > limit:
                raise TimeoutError(f"{self.name}: busy is not {busy} after {IDLE_LIMIT} s")


def get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=IDLE_LIMIT)
    connection.request("GET", path)
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


def busy_streamkit(port: int) -> int:
    books = json.loads(get(port, "/v1/engine"))
    return (books["running"] or 0) + (books["queued"] or 0)


def busy_vllm(port: int) -> int:
    counts = re.findall(
        r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", get(port, "/metrics"), re.MULTILINE
    )
    return sum(int(float(count)) for count in counts)


def leave(server: Server, *, stream: bool, request_id: str) -> float:
    """Ask, leave after the first tokens, and return the seconds until the engine was idle."""
    body = json.dumps(
        {"model": server.model, "prompt": "one two", "max_tokens": TOKENS, "stream": stream}
    )
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), IDLE_LIMIT) as client:
        client.sendall((head + body).encode())
        if stream:
            seen = b""
            while seen.count(b"data:") < 3:
                seen += client.recv(65_536)
        server.wait_busy(True)
        client.close()
        began = time.perf_counter()
        server.wait_busy(False)
        return time.perf_counter() - began


def proof_of(server: Server, request_id: str) -> tuple[str, float]:
    """What streamkit knows of a request: the proof that it stopped, and after how many seconds."""
    limit = time.perf_counter() + IDLE_LIMIT
    while time.perf_counter() < limit:
        books = json.loads(get(server.port, f"/v1/requests/{request_id}"))
        if books.get("proved_after") is not None:
            return books["proof"], books["proved_after"]
    raise TimeoutError(f"no proof for {request_id}")


# -- servers ---------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def flags_for_vllm() -> list[str]:
    flags = []
    for name, value in tiny.ENGINE_ARGS.items():
        flag = "--" + name.replace("_", "-")
        flags += [flag] if value is True else [flag, str(value)]
    return flags


@contextmanager
def started(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended as one ends a server."""
    environment = {**os.environ, **tiny.ENVIRONMENT}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=output, stderr=output, env=environment
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    limit = time.perf_counter() + START_LIMIT
    while time.perf_counter() < limit and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=IDLE_LIMIT)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    raise RuntimeError(f"port {port} is not ready, status {process.poll()}:\n{log.read_text()}")


@contextmanager
def both_servers(folder: Path) -> Iterator[tuple[Server, Server]]:
    """Ours and vLLM's, on the same model; both start at once."""
    model = str(tiny.build(folder / "model"))
    ports = free_port(), free_port()
    ours = ["streamkit.server.cli", "serve", "--engine", "vllm", "--port", str(ports[0])]
    ours += [f"--engine-option={key}={value}" for key, value in options(model).items()]
    theirs = ["vllm.entrypoints.openai.api_server", "--model", model, "--port", str(ports[1])]
    theirs += ["--host", "127.0.0.1", "--served-model-name", MODEL, *flags_for_vllm()]
    logs = folder / "streamkit.log", folder / "vllm.log"
    with ExitStack() as stack:
        one = stack.enter_context(started(*ours, log=logs[0]))
        other = stack.enter_context(started(*theirs, log=logs[1]))
        wait_ready(one, ports[0], "/health/ready", logs[0])
        wait_ready(other, ports[1], "/health", logs[1])
        yield (
            Server("streamkit", ports[0], one.pid, busy_streamkit, "vllm"),
            Server("vLLM", ports[1], other.pid, busy_vllm, MODEL),
        )


def options(model: str) -> dict[str, str]:
    """The tiny model's, as ``--engine-option`` takes them."""
    return {"model": model, **{name: str(value) for name, value in tiny.ENGINE_ARGS.items()}}


# -- the run ---------------------------------------------------------------------------------------


def measure(ours: Server, theirs: Server, rounds: int) -> Samples:
    """Leave each of them in turn; the first round is a warm-up."""
    samples: Samples = {}
    for number in range(rounds + 1):
        for server, stream in product((ours, theirs), (True, False)):
            seconds = leave(server, stream=stream, request_id=f"round-{number}-{stream}")
            if number:
                samples.setdefault((server.name, stream), []).append(seconds)
    return samples


def table(samples: Samples) -> str:
    lines = [f"{'':12}{'median':>10}{'slowest':>10}   ms from close() to an idle engine"]
    for (name, stream), seconds in sorted(samples.items(), key=lambda item: -item[0][1]):
        how = "stream" if stream else "one answer"
        lines.append(f"{name:12}{1e3 * median(seconds):10.1f}{1e3 * max(seconds):10.1f}   {how}")
    lines += [f"{how}: {ratio:.2f} × vLLM's own server" for how, ratio in ratios(samples).items()]
    return "\n".join(lines)


def ratios(samples: Samples) -> dict[str, float]:
    """Our median in those of vLLM's server."""
    return {
        how: median(samples["streamkit", stream]) / median(samples["vLLM", stream])
        for how, stream in (("stream", True), ("one answer", False))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, both_servers(Path(folder)) as servers:
        print(table(measure(*servers, arguments.rounds)))


if __name__ == "__main__":
    main()
