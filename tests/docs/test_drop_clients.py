"""The three examples of the how-to about dropping clients are test files, and they pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import Page
from tests.server.serving import serving

PAGE = Page(Path(__file__).parents[2] / "docs" / "howto" / "drop-clients-on-your-server.md")
SETTINGS = (
    "-oasyncio_mode=auto",
    "-oasyncio_default_fixture_loop_scope=function",
    "-ofilterwarnings=error",
)
pytestmark = [pytest.mark.realtime, pytest.mark.timeout(120)]


@pytest.fixture
def example(tmp_path: Path):
    PAGE.write_files(tmp_path)

    def run(name: str, **environment: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
        done = subprocess.run(
            [*command, "--rootdir=.", *SETTINGS, name],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_fastapi_app_on_each_server(example) -> None:
    assert "3 passed" in example("test_fastapi_app.py")


def test_the_streamkit_app(example) -> None:
    assert "4 passed" in example("test_streamkit_app.py")


def test_someone_elses_server(example) -> None:
    with serving(step_ms=5) as served:
        assert "18 passed" in example("test_other_server.py", SERVER_URL=served.url)
