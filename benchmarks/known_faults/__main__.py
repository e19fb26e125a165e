"""``python -m benchmarks.known_faults``: whether the kit finds LitServe's run-on generation.

Starts LitServe in an environment of its own and points `streamkit chaos` at it. Exit status 1 if
the verdict is not the known one. (The faults of plain Starlette apps are in the test suite.)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.environments import ROOT, environment, versions
from benchmarks.servers import free_port, is_ready

START_LIMIT = 60.0
STOP_LIMIT = 10.0
FAULTS = {"streaming": "rst@byte:9", "plain": "fin@queued:0.3"}
TEMPLATE = {
    "path": "/ask",
    "json": {"prompt": "{prompt}", "words": "{max_tokens}"},
    "counters": {"path": "/stats", "running": ["running"], "tokens": ["made"]},
}
OPTIONS = ("--clients=6", "--concurrency=3", "--stop-within=1", "--stay=0.3", "--seed=1")


@contextmanager
def litserve(shape: str, folder: Path) -> Generator[str]:
    """Serve while the block runs; gives the URL."""
    port, log = free_port(), folder / f"{shape}.log"
    counters = folder / f"{shape}.counters"
    counters.write_bytes(bytes(16))
    python = environment("litserve") / "python"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", "benchmarks.known_faults.litserve_app", str(port), shape],
            cwd=ROOT,
            env={**os.environ, "KNOWN_FAULTS_COUNTERS": str(counters)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + START_LIMIT
        while not is_ready(port, "/stats"):
            if time.monotonic() > give_up or process.poll() is not None:
                raise RuntimeError(f"LitServe did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its own session: itself and its workers
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def verdict(shape: str, folder: Path) -> dict[str, object]:
    """What `streamkit chaos` says of it."""
    template, report = folder / "template.json", folder / f"{shape}.json"
    template.write_text(json.dumps(TEMPLATE))
    with litserve(shape, folder) as url:
        command = [sys.executable, "-m", "streamkit.server.cli", "chaos", url, *OPTIONS]
        files = [f"--request-template={template}", f"--json={report}"]
        done = subprocess.run([*command, *files, f"--fault={FAULTS[shape]}"], check=False)
    said = json.loads(report.read_text())
    return {
        "status": done.returncode,
        "cell": said["cells"][0]["state"],
        "tokens": said["cells"][0]["tokens"],
        "visible": said["checks"]["visible"]["word"],
        "stops": said["checks"]["stops"]["detail"],
    }


def main() -> int:
    print(f"LitServe {versions('litserve')['litserve']}", flush=True)
    found = True
    with tempfile.TemporaryDirectory() as name:
        for shape in FAULTS:
            said = verdict(shape, Path(name))
            is_known = (said["status"], said["cell"], said["visible"]) == (1, "ran on", "good")
            found &= is_known
            print(f"{shape}: {'found' if is_known else 'NOT FOUND'}: {said}", flush=True)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
