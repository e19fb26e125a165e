"""`streamkit serve` in a process of its own, for tests of what only a process can show."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import httpx

FULL = os.environ.get("SURVIVE") == "full"  # each parser and loop, many crowds
LIMIT = 10.0  # real seconds; each of these ends in a fraction of it
# For httpx, which otherwise reads the certificates of the world for each client: 17 ms.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# What the tests' own environment may have set must not decide.
ENVIRONMENT = {name: value for name, value in os.environ.items() if "STREAMKIT" not in name}


class Served:
    """A running server; its log is read when it has ended."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: IO[str]) -> None:
        self.process = process
        self.url = url
        self._log = log

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=LIMIT, verify=NO_TLS).json()

    def generate(self, **body: object) -> httpx.Response:
        url, asked = f"{self.url}/generate", {"prompt": "a b c", **body}
        return httpx.post(url, json=asked, timeout=LIMIT, verify=NO_TLS)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, limit: float = LIMIT) -> tuple[int, str]:
        """Its exit status and its log, when it has ended."""
        status = self.process.wait(limit)
        self._log.seek(0)
        return status, self._log.read()


@contextmanager
def serving(*flags: str, **options: object) -> Iterator[Served]:
    """Serve; ``options`` are those of the fake engine."""
    engine = [f"--engine-option={name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "streamkit.server.cli", "serve", "--port", "0"]
    # A file: nobody reads the log before the end, and a full pipe would stop the server.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, *engine, *flags],
            stdout=subprocess.PIPE,
            stderr=log,
            env=ENVIRONMENT,
            text=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            served = Served(process, line.split()[-1] if line else "", log)
            assert line.startswith("streamkit: ready on http://"), (line, served.wait())
            yield served
        finally:
            process.kill()
            process.communicate()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "streamkit.server.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**ENVIRONMENT, **environment},
        check=False,
    )


def access_lines(log: str) -> list[dict[str, Any]]:
    """The lines of ``--access-log json``."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]
