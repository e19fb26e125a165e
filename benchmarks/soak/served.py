"""`streamkit serve` as it is, in a process of its own, watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.environments import ROOT
from streamkit.testing import open_request

PAGE = os.sysconf("SC_PAGE_SIZE")
STOP_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The process at one moment.

    Attributes:
        at: Seconds since the first one.
        rss: Resident memory, in KiB.
        fds: Open file descriptors.
        threads: Of the process.
        ended: Requests whose answers are over.
    """

    at: float
    rss: float
    fds: int
    threads: int
    ended: float


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    began_at: float = field(default_factory=time.monotonic)

    async def sample(self) -> Sample:
        entry = Path(f"/proc/{self.process.pid}")
        fds = _count(entry / "fd")  # before we come with another one
        metrics = await self.metrics()
        return Sample(
            at=time.monotonic() - self.began_at,
            rss=int((entry / "statm").read_text().split()[1]) * PAGE / 1024,
            fds=fds,
            threads=_count(entry / "task"),
            ended=sum_of(metrics, "streamkit_requests_ended_total"),
        )

    async def metrics(self) -> Mapping[str, float]:
        """Every sample by name and labels."""
        page = await self.get("/metrics")
        families = text_string_to_metric_families(page)
        return {
            f"{sample.name}{sorted(sample.labels.items())}": sample.value
            for family in families
            for sample in family.samples
        }

    async def get(self, path: str) -> str:
        headers = {"connection": "close"}
        async with open_request("GET", self.url + path, headers=headers, timeout=60) as client:
            return (await client.read_body()).decode()

    async def engine(self) -> dict[str, Any]:
        return json.loads(await self.get("/v1/engine"))

    async def at_rest(self, within: float) -> bool:
        """Whether nothing is in flight any more, waiting so many seconds for that."""
        with anyio.move_on_after(within):
            while True:
                metrics, engine = await self.metrics(), await self.engine()
                in_flight = sum_of(metrics, "streamkit_requests_in_flight")
                if not (in_flight or engine["running"] or engine["queued"]):
                    return True
                await anyio.sleep(0.1)  # there is no event that comes out of the process
        return False

    def stop(self) -> int:
        """Drain; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_LIMIT)

    def access(self) -> list[dict[str, Any]]:
        """The lines of its access log."""
        return [json.loads(line) for line in self.lines() if line.startswith("{")]

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def sum_of(metrics: Mapping[str, float], name: str) -> float:
    """All label sets of a metric together."""
    return sum(value for key, value in metrics.items() if key.partition("[")[0] == name)


@contextmanager
def serving(flags: Sequence[str], folder: Path) -> Generator[Served]:
    """Serve while the block runs."""
    command = [sys.executable, "-m", "streamkit.server.cli", "serve", "--port", "0"]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--access-log", "json", *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("streamkit: ready on "):
            raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
        yield Served(process, line.split()[-1], log)
    finally:
        process.kill()
        process.communicate()
