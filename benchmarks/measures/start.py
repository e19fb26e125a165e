"""Goal 8: how long until it can be used."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.environments import environment
from benchmarks.figures import Figure
from benchmarks.peers import OURS, SERVE

NOTHING = "python"
IMPORTS = {
    NOTHING: "pass",
    "anyio": "import anyio",
    OURS: "import streamkit",
    "Starlette": "import starlette.applications",
    "FastAPI": "import fastapi",
}
IMPORT = Figure("start: a process that imports it", "ms")
IMPORT_CPU = Figure("start: its CPU", "ms")
READY = Figure("start: until it is ready", "s")


def measure(bench: Bench) -> None:
    """Fresh processes, in turn; the first of each only writes bytecode."""
    folder = environment("asgi")
    for number in range(-1, bench.plan.starts):
        if number % 5 == 0:
            bench.watch.look()
        for name, code in IMPORTS.items():
            seconds, cpu = _run(folder, code)
            if number >= 0:
                bench.figures.add(IMPORT, name, str(number), seconds * 1_000)
                bench.figures.add(IMPORT_CPU, name, str(number), cpu * 1_000)
        seconds = _until_ready(folder)
        if number >= 0:
            bench.figures.add(READY, SERVE, str(number), seconds)


def _run(folder: Path, code: str) -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([folder / "python", "-c", code], check=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _until_ready(folder: Path) -> float:
    """From the start of the process to its first line, which says that it can answer."""
    began = time.perf_counter()
    command = [folder / "streamkit", "serve", "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    if not line.startswith(b"streamkit: ready"):
        raise RuntimeError(f"streamkit serve said {line!r}")
    return seconds
