"""Real servers in processes of their own: started, asked, and stopped by their process id."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from streamkit.testing import open_request

ROOT: Final = Path(__file__).parents[2]
APP: Final = "tests.e2e.app:app"
START_LIMIT: Final = 60  # seconds; several start at the same time on a busy machine
LOOKS: Final = 50  # for a server that starts, in each second
STOP_LIMIT: Final = 15.0
# Below the ports that the kernel gives to clients: no connection of ours can take one meanwhile.
PORTS: Final = range(20_000, 32_000)

UVICORN: Final = ["uvicorn", "--log-level", "warning", "--lifespan", "on", "--port", "{port}"]
# hypercorn gives open requests 3 s when it stops, and tells the app nothing meanwhile.
HYPERCORN: Final = [
    "hypercorn", "--bind", "127.0.0.1:{port}", "--error-logfile", "-", "--graceful-timeout", "1"
]  # fmt: skip
GRANIAN: Final = [
    "granian", "--interface", "asgi", "--log-level", "warning", "--port", "{port}"
]  # fmt: skip

SERVERS: Final[dict[str, list[str]]] = {
    "uvicorn-h11": [*UVICORN, "--http", "h11", "--loop", "asyncio"],
    "uvicorn-h11-uvloop": [*UVICORN, "--http", "h11", "--loop", "uvloop"],
    "uvicorn-httptools": [*UVICORN, "--http", "httptools", "--loop", "asyncio"],
    "uvicorn-httptools-uvloop": [*UVICORN, "--http", "httptools", "--loop", "uvloop"],
    "hypercorn": [*HYPERCORN, "--worker-class", "asyncio"],
    "hypercorn-uvloop": [*HYPERCORN, "--worker-class", "uvloop"],
    "granian": [*GRANIAN, "--loop", "asyncio"],
    "granian-uvloop": [*GRANIAN, "--loop", "uvloop"],
}
HTTP2: Final = [name for name in SERVERS if not name.startswith("uvicorn")]


@dataclass
class Server:
    """One server process, and the questions that tests have."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    ready: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ended(self, request_id: str) -> dict[str, Any]:
        """What happened inside that request; waits until it has ended."""
        return await self.ask(f"/control/ended/{request_id}")

    async def reached(self, request_id: str, mark: str) -> None:
        """Wait until that request has come so far."""
        assert await self.ask(f"/control/reached/{request_id}?mark={mark}"), (
            f"{request_id} never reached {mark}: {await self.ended(request_id)}"
        )

    async def books(self) -> dict[str, Any]:
        """What there is in the process, once it has come to rest."""
        return await self.ask("/control/books")

    async def ask(self, path: str) -> Any:
        headers = {"connection": "close"}
        async with open_request("GET", self.url + path, headers=headers, timeout=30) as client:
            return json.loads(await client.read_body())

    def said(self, since: int = 0) -> str:
        """Its log, from that position on."""
        with Path(self.log.name).open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def wait_ready(self) -> None:
        """Return when it accepts connections."""
        for _ in range(START_LIMIT * LOOKS):
            if self.ready or self.process.poll() is not None:
                break
            with socket.socket() as probe:
                self.ready = probe.connect_ex(("127.0.0.1", self.port)) == 0
            if not self.ready:
                time.sleep(1 / LOOKS)  # noqa: TID251 - no event that all of them give
        if not self.ready:
            raise RuntimeError(f"{self.name} did not start: {self.said()[-3000:]}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait_stopped(self, limit: float = STOP_LIMIT) -> int:
        """Return its exit status.

        Raises:
            subprocess.TimeoutExpired: It goes on.
        """
        return self.process.wait(limit)

    def stop(self) -> None:
        """Ask it to stop, and kill it with its workers if it does not."""
        if self.process.poll() is None:
            self.signal()
        try:
            self.wait_stopped()
        except subprocess.TimeoutExpired:
            # Its own session, made below: the group holds this server and its workers only.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


def start(name: str, folder: Path, *options: str, **environment: str) -> Server:
    """Start a server and return at once; :meth:`Server.wait_ready` waits for it."""
    port = _free_port()
    arguments = [part.format(port=port) for part in (*SERVERS[name], *options)]
    log = (folder / f"{name}-{port}.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments, APP],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return Server(name, port, process, log, environment=environment)


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
