"""`streamkit serve --engine …` for engines that need a GPU, on the stubs of their packages."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from streamkit.testing import ResponseReader, encode_request
from tests.docs.test_examples import until

from . import serving
from .serving import LIMIT, Served

ROOT = Path(__file__).parents[2]
# The option that each must have, and the proof that a running request stopped.
ENGINES = {
    "sglang": ("model", "observed"),
    "triton": ("url", "closed"),
    "trtllm": ("model", "answered"),
}
pytestmark = pytest.mark.realtime


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def served(engine: str) -> Iterator[Served]:
    """One for each engine; the last test ends it."""
    stubs = ROOT / "tests/engines/stand_ins"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(serving.ENVIRONMENT, "PYTHONPATH", f"{ROOT}:{stubs}")
        with serving.serving("--engine", engine, **{ENGINES[engine][0]: "stub"}) as server:
            yield server


def ask(served: Served, **wishes: object) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "hello"}], "model": "any", **wishes}
    return httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=LIMIT)


def test_an_openai_client_gets_what_it_asked_for(served: Served) -> None:
    answer = ask(served, max_tokens=3, n=2, temperature=0.5).json()

    texts = [choice["message"]["content"].split() for choice in answer["choices"]]
    assert [len(text) for text in texts] == [3, 3]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert answer["usage"]["completion_tokens"] == 6


def test_a_client_that_leaves_stops_the_engine(served: Served, engine: str) -> None:
    to = urlsplit(served.url)
    body = b'{"prompt": "hello", "max_tokens": 100000, "stream": true}'
    request = encode_request("POST", "/generate", body=body, headers={"x-request-id": "me"})
    with socket.create_connection((to.hostname, to.port), timeout=LIMIT) as client:
        client.sendall(request)
        reader = ResponseReader("POST")
        while not reader.chunks:
            reader.feed(client.recv(65_536))

    assert served.generate(max_tokens=1).status_code == 200  # the stub has one slot
    account = until(lambda: served.get("/v1/requests/me"), lambda it: it["proof"])
    assert (account["reason"], account["phase"]) == ("client_disconnect", "cancelled")
    assert account["proof"] == ENGINES[engine][1]


def test_a_signal_drains(served: Served) -> None:
    assert served.generate(max_tokens=1).status_code == 200

    served.signal()

    status, log = served.wait()
    assert status == 0, log
    assert "Traceback" not in log
