"""A worker process that a model forks is no second server."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server.serving import LIMIT, Served, serving

pytestmark = pytest.mark.realtime
MODEL = str(Path(__file__).with_name("models") / "forks.py")
MODEL_OF_A_PROCESS = Path(__file__).with_name("models") / "starts_a_process.py"


def predict(served: Served, inputs: str) -> object:
    return httpx.post(f"{served.url}/predict", json=inputs, timeout=LIMIT).json()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_that_is_terminated_ends_and_the_server_goes_on(loop: str) -> None:
    with serving(MODEL, "--loop", loop) as served:
        assert predict(served, "end") is True
        assert predict(served, "end") is True
        served.signal()
        status, log = served.wait()

    assert status == 0
    assert log.count("draining") == 1


def test_a_worker_that_outlives_its_server_does_not_hold_the_port() -> None:
    with serving(MODEL) as served:
        predict(served, "leave")
        [worker] = children_of(served.process.pid)
        served.process.kill()
        served.process.wait(LIMIT)
        try:
            with socket.socket() as ours:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                ours.bind(("127.0.0.1", urlsplit(served.url).port or 0))
                ours.listen()
        finally:
            subprocess.run(["kill", "-9", worker], check=True)


def test_a_worker_ends_with_a_server_that_is_killed() -> None:
    with serving(MODEL) as served:
        predict(served, "keep")
        until(lambda: len(children_of(served.process.pid)) == 2)  # it, and who watches
        [worker] = [child for child in children_of(served.process.pid) if "python" in name(child)]
        served.process.kill()
        served.process.wait(LIMIT)

        until(lambda: name(worker) == "")


@pytest.mark.skipif(sys.platform != "linux", reason="it takes PR_SET_PDEATHSIG")
def test_a_process_that_ends_with_its_parent_does_not_end_with_the_load() -> None:
    """To the kernel its parent is the thread that started it: SGLang's engine would be killed."""
    with serving(str(MODEL_OF_A_PROCESS)) as served:
        assert predict(served, "") is None
        served.signal()
        status, _ = served.wait()

    assert status == 0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT  # noqa: TID251
    while not true():
        assert time.monotonic() < deadline  # noqa: TID251
        time.sleep(0.05)  # noqa: TID251 - no event comes of other processes


def name(process: str) -> str:
    """Its command, if it is alive."""
    shown = subprocess.run(
        ["ps", "-o", "stat=,comm=", "-p", process], capture_output=True, text=True, check=False
    )
    return "" if shown.stdout.startswith("Z") else shown.stdout


def children_of(process: int) -> list[str]:
    shown = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False
    )
    return shown.stdout.split()
