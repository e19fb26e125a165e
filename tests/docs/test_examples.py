"""Every example is served as its README says, answers, and stops when its client leaves."""

from __future__ import annotations

import ast
import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import connect

from streamkit.server import cli
from streamkit.testing import ResponseReader, encode_request
from tests.server.serving import LIMIT, Served, serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ROW = re.compile(r"\| .+? \| \[`(\S+)`\]\(\1\) \| `(.+?)` \| `(\S+)` \| .+ \|")
ROWS = {
    match[1]: (match[2], match[3]) for match in ROW.finditer((EXAMPLES / "README.md").read_text())
}
SOCKET = "/v1/websocket"
VALUES = {
    "coroutine.py": r'\{"text": "\w+ \w+ \w+"\}',
    "stages.py": r'\{"text": "\w+ \w+ \w+", "tokens": 3\}',
    "sync_function.py": r'\{"total": \d+\}',
    "watch_disconnect.py": r'\{"steps": 3\}',
}
STREAMS = {
    "chat_completions.py": r"(data: \{.+\}\n\n){3}data: \[DONE\]\n\n",
    "is_disconnected.py": "01234",
    "sync_generator.py": "0 1 2 ",
    "truss_folder": r"(\w+ ){3}",
}
TEXT = r"\w+ \w+ \w+"  # of the others


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What one example did: for a client that stayed, and for one that left halfway."""

    status: int
    answer: str
    account: Mapping[str, Any]
    engine: Mapping[str, Any]


Visits = dict[str, Future[Visit]]


def until(look: Callable[[], Any], reached: Callable[[Any], object]) -> Any:
    deadline = time.monotonic() + LIMIT  # noqa: TID251 - the server runs on the real clock
    while not reached(seen := look()):
        assert time.monotonic() < deadline, seen  # noqa: TID251
        time.sleep(0.01)  # noqa: TID251 - no event comes of another process
    return seen


def account_of(served: Served, request_id: str) -> dict[str, Any]:
    return served.get(f"/v1/requests/{request_id}")


def shorter(body: str) -> bytes:
    """The same request for less work."""
    wishes = json.loads(body)
    return json.dumps({k: 3 if type(v) is int else v for k, v in wishes.items()}).encode()


def leave_halfway(served: Served, path: str, body: str, *, streams: bool) -> None:
    to = urlsplit(served.url)
    with socket.create_connection((to.hostname, to.port), timeout=LIMIT) as client:
        headers = {"x-request-id": "left"}
        client.sendall(encode_request("POST", path, body=body.encode(), headers=headers))
        if streams:
            reader = ResponseReader("POST")
            while not reader.chunks:
                reader.feed(client.recv(65_536))
        else:
            until(lambda: account_of(served, "left"), lambda it: it.get("phase") == "prefill")


def ask_twice(served: Served, example: str) -> tuple[int, str]:
    """Two clients at a time: one stays, the other leaves halfway."""
    body, path = ROWS[example]
    with ThreadPoolExecutor(1) as elsewhere:
        url = served.url + path
        asked = elsewhere.submit(httpx.post, url, content=shorter(body), timeout=LIMIT)
        leave_halfway(served, path, body, streams=example not in VALUES)
        whole = asked.result()
        return whole.status_code, whole.text


def visit(example: str) -> Visit:
    with serving(str(EXAMPLES / example), "--predict-concurrency", "2") as served:
        talks = ROWS[example][1] == SOCKET
        status, answer = talk(served, "hello") if talks else ask_twice(served, example)
        account = until(lambda: account_of(served, "left"), lambda it: it["proof"])
        engine = until(lambda: served.get("/v1/engine"), lambda it: not it["running"])
        return Visit(status=status, answer=answer, account=account, engine=engine)


def talk(served: Served, message: str) -> tuple[int, str]:
    """Over a websocket: read some of the answer, then hang up without a word."""
    url = f"ws{served.url.removeprefix('http')}{SOCKET}"
    with connect(url, additional_headers={"x-request-id": "left"}) as client:
        client.send(message)
        answer = "".join(str(client.recv(LIMIT)) for _ in range(3))
        client.socket.shutdown(socket.SHUT_RDWR)
        assert client.response is not None
        return client.response.status_code, answer


@pytest.fixture(scope="module")
def visits() -> Iterator[Visits]:
    """All of them in one pass, two processes at a time."""
    two = ThreadPoolExecutor(2)
    yield {example: two.submit(visit, example) for example in ROWS}
    two.shutdown(cancel_futures=True)  # where not all of these tests were asked for


@pytest.mark.realtime
@pytest.mark.timeout(120)
@pytest.mark.parametrize("example", ROWS)
def test_a_client_that_stays_gets_the_whole_answer(visits: Visits, example: str) -> None:
    seen = visits[example].result()

    assert seen.status == (101 if "socket" in example else 200)
    assert re.fullmatch({**VALUES, **STREAMS}.get(example, TEXT), seen.answer)


@pytest.mark.realtime
@pytest.mark.timeout(120)
@pytest.mark.parametrize("example", ROWS)
def test_a_client_that_leaves_halfway_stops_the_work(visits: Visits, example: str) -> None:
    seen = visits[example].result()

    assert (seen.account["phase"], seen.account["reason"]) == ("cancelled", "client_disconnect")
    assert seen.account["proof"] == "joined"
    assert (seen.engine["running"], seen.engine["queued"], seen.engine["quarantined"]) == (0, 0, 0)


@pytest.mark.parametrize("example", ROWS)
def test_check_finds_nothing_to_warn_of(
    example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)

    assert cli.main(["check", f"examples/{example}"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_the_readme_has_a_row_for_each_example() -> None:
    # These have tests of their own: tests/real, and test_trtllm_examples.py.
    others = {"README.md", "__pycache__", "transformers", "vllm", "trtllm"}
    models = [path for path in EXAMPLES.iterdir() if path.name not in others]

    assert sorted(ROWS) == sorted(path.name for path in models)


@pytest.mark.parametrize(
    "source", [*EXAMPLES.rglob("*.py")], ids=lambda path: str(path.relative_to(EXAMPLES))
)
def test_the_first_line_of_an_example_is_its_idea(source: Path) -> None:
    idea = ast.get_docstring(ast.parse(source.read_text()))

    assert idea is not None
    assert "\n" not in idea
