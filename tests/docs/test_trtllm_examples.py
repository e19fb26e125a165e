"""The examples for TensorRT-LLM run on the stubs as their README says, and stop when left."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from streamkit.server import cli
from streamkit.testing import ResponseReader, encode_request
from tests.server import serving

from .test_examples import until

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "trtllm"
README = (FOLDER / "README.md").read_text()
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README exports."""
    (exported,) = re.findall(r"\$ export (MODEL=stub .*)", README)
    for setting in exported.split():
        name, value = setting.split("=")
        monkeypatch.setitem(serving.ENVIRONMENT, name, value)
    monkeypatch.chdir(ROOT)


@pytest.fixture
def served(environment: None, example: str) -> Iterator[serving.Served]:
    with serving.serving(str(FOLDER / example)) as server:
        yield server


def test_the_readme_has_a_row_for_each_example() -> None:
    assert sorted(re.findall(r"^\| \[`(\S+)`\]", README, re.MULTILINE)) == EXAMPLES


@pytest.mark.realtime
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_client_that_stays_gets_the_whole_answer(served: serving.Served) -> None:
    body = {"prompt": "hello", "max_tokens": 3}

    answer = httpx.post(f"{served.url}/predict", json=body, timeout=serving.LIMIT)

    assert (answer.status_code, len(answer.text.split())) == (200, 3)


@pytest.mark.realtime
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_client_that_leaves_halfway_stops_the_work(served: serving.Served) -> None:
    to = urlsplit(served.url)
    body = b'{"prompt": "hello", "max_tokens": 100000}'
    request = encode_request("POST", "/predict", body=body, headers={"x-request-id": "me"})
    with socket.create_connection((to.hostname, to.port), timeout=serving.LIMIT) as client:
        client.sendall(request)
        reader = ResponseReader("POST")
        while not reader.chunks:
            reader.feed(client.recv(65_536))

    account: dict[str, Any] = until(
        lambda: served.get("/v1/requests/me"), lambda it: it["phase"] == "cancelled"
    )
    assert account["reason"] == "client_disconnect"
    again = httpx.post(  # the stub has one slot
        f"{served.url}/predict", json={"prompt": "w", "max_tokens": 1}, timeout=serving.LIMIT
    )
    assert again.status_code == 200


@pytest.mark.parametrize("example", EXAMPLES)
def test_check_finds_nothing_to_warn_of(
    example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (ROOT, ROOT / "tests/engines/stand_ins"):
        monkeypatch.syspath_prepend(str(folder))

    assert cli.main(["check", str(FOLDER / example)]) == 0
    assert "warning" not in capsys.readouterr().out
