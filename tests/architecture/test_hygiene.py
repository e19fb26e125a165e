"""The net under the whole suite holds: a test that blocks or leaves something behind fails."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = {"asyncio": "pyproject.toml", "trio": "pytest-trio.toml"}
SLOPPY = """
import threading, time
import anyio, asyncio, pytest

async def test_blocks():
    time.sleep(0.001)

@pytest.mark.blocks_the_loop
async def test_blocks_on_purpose():
    time.sleep(0.001)

@pytest.mark.asyncio_only
async def test_leaves_a_task():
    global task
    task = asyncio.create_task(asyncio.Event().wait())

@pytest.mark.asyncio_only
def test_leaves_a_thread():
    threading.Thread(target=time.sleep, args=(60,), name="streamkit-left", daemon=True).start()

async def test_is_tidy_and_long():
    began = anyio.current_time()
    await anyio.sleep(3600)
    assert anyio.current_time() - began >= 3600
"""


@pytest.mark.parametrize(
    ("loop", "outcome"),
    [
        pytest.param("asyncio", {"passed": 4, "failed": 1, "error": 2}, id="asyncio"),
        pytest.param("trio", {"passed": 3, "deselected": 2}, id="trio"),
    ],
)
def test_a_sloppy_test_fails(tmp_path: Path, loop: str, outcome: dict[str, int]) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    sloppy = tmp_path / "test_sloppy.py"
    sloppy.write_text(SLOPPY)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / CONFIG[loop], "-p", "no:cacheprovider"]

    run = subprocess.run([*command, sloppy], cwd=ROOT, capture_output=True, text=True, check=False)

    counts = re.findall(r"(\d+) (passed|failed|error|deselected)", run.stdout.splitlines()[-1])
    assert {what: int(count) for count, what in counts} == outcome, run.stdout
