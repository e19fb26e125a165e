"""OpenAI's Node client, unmodified: it reads, raises and leaves as its Python one does.

`make test-openai-node` installs it; without that these tests are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .serving import LIMIT, Served, serving

FOLDER = Path(__file__).parents[1] / "openai_node"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(
        NODE is None or not (FOLDER / "node_modules" / "openai").is_dir(),
        reason="node or its openai package is not installed: make test-openai-node",
    ),
]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("--heartbeat=0.05", slots=4, step_ms=5) as server:
        yield server


@contextmanager
def client(served: Served, way: str) -> Iterator[dict[str, Any]]:
    """What the client saw; it lives until the block ends, so that not its end is what is seen."""
    variables = {"OPENAI_BASE_URL": f"{served.url}/v1", "OPENAI_API_KEY": "unused"}
    with subprocess.Popen(
        [str(NODE), "client.mjs", way],
        cwd=FOLDER,
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("whole", {"said": "high low hard call list", "reason": "length", "tokens": 5}),
        ("models", {"said": ["fake"]}),
    ],
)
def test_it_reads_an_answer(served: Served, way: str, expected: dict[str, Any]) -> None:
    with client(served, way) as seen:
        assert seen == expected


def test_it_reads_a_stream_up_to_a_stop_string(served: Served) -> None:
    with client(served, "stream") as seen:
        assert seen["reason"] == "stop"
        assert " hard" not in seen["said"]
        assert seen["tokens"] > 1


def test_it_raises_what_fits_a_bad_request(served: Served) -> None:
    with client(served, "bad") as seen:
        assert (seen["error"], seen["status"], seen["param"]) == ("BadRequestError", 400, "n")


def test_it_raises_when_a_stream_is_cancelled(served: Served) -> None:
    with client(served, "cancelled") as seen:
        assert (seen["error"], seen["code"]) == ("APIError", "requested")
        assert "the request was cancelled" in seen["message"]


@pytest.mark.parametrize(
    ("way", "error"),
    [
        ("leave_by_break", None),
        ("leave_by_controller", None),
        ("leave_by_signal", None),
        ("leave_by_signal_while_reading", None),
        ("leave_a_whole_answer_by_signal", "APIUserAbortError"),
        ("leave_by_timeout", "APIConnectionTimeoutError"),
    ],
)
def test_however_it_leaves_the_engine_stops(served: Served, way: str, error: str | None) -> None:
    with client(served, way) as seen:
        assert seen.get("error") == error

        account = last_ended(served)
        assert (account["phase"], account["reason"]) == ("cancelled", "client_disconnect")
        assert account["proof"] == "observed"
        assert account["saved"] > 0
        engine = served.get("/v1/engine")
        assert (engine["running"], engine["queued"]) == (0, 0)


def last_ended(served: Served) -> dict[str, Any]:
    """The last request, when its books are closed."""
    until = time.perf_counter() + LIMIT
    while time.perf_counter() < until:
        account = served.get("/v1/requests")["requests"][0]
        if account["phase"] in ("finished", "cancelled", "failed"):
            return account
    raise AssertionError("it runs on")
