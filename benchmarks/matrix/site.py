"""Servers of the matrix as processes: started, asked at their door, and stopped by their id."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

from benchmarks.environments import ROOT
from benchmarks.matrix.app import DOOR
from benchmarks.matrix.cells import SETTINGS, Column
from benchmarks.matrix.serve import TLS
from benchmarks.servers import free_port

START_LIMIT = 60.0
STOP_LIMIT = 10.0


@dataclass
class Site:
    """One that runs."""

    column: Column
    url: str
    tls: ssl.SSLContext | None
    tls_http1: ssl.SSLContext | None
    _stream: ByteStream
    _lines: BufferedByteReceiveStream
    _asked: int = 0

    async def ask(self, what: str, **question: object) -> Any:
        """Put a question to its witness; whoever is cancelled meanwhile leaves an answer behind."""
        self._asked += 1
        asked = {"ask": what, "number": self._asked, **question}
        await self._stream.send(json.dumps(asked).encode() + b"\n")
        while True:
            answer = json.loads(await self._lines.receive_until(b"\n", 1 << 24))
            if answer["number"] == asked["number"]:
                return answer


@dataclass(frozen=True)
class Certificate:
    """For 127.0.0.1, signed by itself."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        made = cls(folder / "certificate.pem", folder / "key.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
             "-out", str(made.certificate), "-keyout", str(made.key)],
            check=True,
            capture_output=True,
        )  # fmt: skip
        return made

    def context(self, *, http2: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.certificate)
        context.set_alpn_protocols(["h2"] if http2 else ["http/1.1"])
        return context


@asynccontextmanager
async def running(
    column: Column, folder: Path, certificate: Certificate | None = None
) -> AsyncGenerator[Site]:
    """Start a server, and stop it at the end."""
    port = free_port()
    door, log = folder / f"{port}.door", folder / f"{port}.log"
    process = _start(column, port, log, _environment(column, door, certificate))
    try:
        stream = await _open(process, column.kind, door, port, log)
        async with stream:
            scheme = "https" if certificate else "http"
            tls = certificate.context(http2=column.http2) if certificate else None
            url = f"{scheme}://127.0.0.1:{port}"
            http1 = certificate.context(http2=False) if certificate else None
            yield Site(column, url, tls, http1, stream, BufferedByteReceiveStream(stream))
    finally:
        _stop(process)


def _start(
    column: Column, port: int, log: Path, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.matrix.serve", column.kind, str(port)],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _environment(column: Column, door: Path, certificate: Certificate | None) -> Mapping[str, str]:
    settings = {"access_log": "off", **SETTINGS, **column.settings}
    variables = {f"STREAMKIT_{name.upper()}": value for name, value in settings.items()}
    files = f"{certificate.certificate}:{certificate.key}" if certificate else ""
    return {**variables, DOOR: str(door), TLS: files, "PYTHONPATH": str(ROOT)}


async def _open(
    process: subprocess.Popen[bytes], kind: str, door: Path, port: int, log: Path
) -> ByteStream:
    """The door, once the server accepts connections as well."""
    give_up = time.monotonic() + START_LIMIT
    while time.monotonic() < give_up and process.poll() is None:
        # All but granian listen before they open the door; and each would keep what only probes.
        if kind != "granian" or _listens(port):
            with contextlib.suppress(OSError):  # it is not there, or not open
                return await anyio.connect_unix(str(door))
        await anyio.sleep(0.02)
    said = log.read_text()[-2000:]  # noqa: ASYNC240 - there is nothing left to wait for
    raise RuntimeError(f"the server did not start: {said}")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: itself and its workers
        process.wait()
