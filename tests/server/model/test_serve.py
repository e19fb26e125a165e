"""Model files as they are, served by `streamkit serve`, asked and left over real sockets."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from streamkit.testing import Leave, open_request
from tests.server.serving import LIMIT, Served, access_lines, serving

pytestmark = pytest.mark.realtime
MODELS = Path(__file__).with_name("models")
PREDICT = "/v1/models/model:predict"


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[str, Served]]:
    """All of them, started side by side."""
    with ExitStack() as stack:
        started = {
            "anything": serving(str(MODELS / "anything.py")),
            "truss": serving(str(MODELS / "truss")),
        }
        yield {name: stack.enter_context(process) for name, process in started.items()}


@pytest.fixture
def anything(processes: dict[str, Served]) -> Served:
    return processes["anything"]


def ask(served: Served, do: str, headers: dict[str, str] | None = None, **inputs: Any):
    return httpx.post(
        served.url + PREDICT, json={"do": do, **inputs}, headers=headers, timeout=LIMIT
    )


# -- what it answers ---------------------------------------------------------------------------


def test_a_value(anything: Served) -> None:
    answer = ask(anything, "value", n=1)

    assert answer.json() == {"do": "value", "n": 1}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("kind", ["stream", "sync_stream", "answer"])
def test_a_stream(anything: Served, kind: str) -> None:
    answer = ask(anything, kind, chunks=3, seconds=0.001, name="whole")

    assert answer.text == "0 1 2 "
    assert answer.headers["transfer-encoding"] == "chunked"


def test_a_stream_as_events(anything: Served) -> None:
    answer = ask(
        anything, "stream", {"accept": "text/event-stream"}, chunks=1, seconds=0, name="events"
    )

    assert answer.text.startswith("data: 0 \r\n\r\nevent: done\r\n")


def test_a_stream_as_one_text(anything: Served) -> None:
    answer = ask(anything, "stream", {"accept": "application/json"}, chunks=2, seconds=0, name="")

    assert answer.json() == "0 1 "


def test_a_stream_as_openai_frames_it(anything: Served) -> None:
    answer = httpx.post(anything.url + "/v1/chat/completions", json={})

    assert answer.text == 'data: {"n": 0}\n\ndata: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n'


def test_an_error_before_the_first_chunk(anything: Served) -> None:
    answer = ask(anything, "breaks", chunks=0)

    assert answer.status_code == 500
    assert answer.json() == {"error": "Internal Server Error (in model/chainlet)."}
    assert answer.headers["x-baseten-error-code"] == "600"


def test_an_error_after_it(anything: Served) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match=r"incomplete|peer closed"):
        ask(anything, "breaks", chunks=2)


def test_an_http_exception(anything: Served) -> None:
    answer = ask(anything, "refuses")

    assert (answer.status_code, answer.json()) == (418, {"error": {"a": "teapot"}})
    assert answer.headers["x-kettle"] == "on"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/", True),
        ("/v1/models/model", {}),
        ("/v1/models/model/loaded", {}),
        ("/ping", {}),
        ("/health/ready", {"status": "ready"}),
    ],
)
def test_routes_that_look(anything: Served, path: str, answer: object) -> None:
    assert anything.get(path) == answer


def test_a_folder_in_trusss_layout(processes: dict[str, Served]) -> None:
    served = processes["truss"]

    right = httpx.post(served.url + PREDICT, json={"words": ["a", "b"]})
    wrong = httpx.post(served.url + PREDICT, json={"words": [1]})

    assert right.json() == {"name": "Words", "text": "A-B", "asked": 2}
    assert wrong.status_code == 400
    assert wrong.json()["error"].startswith("Input Parsing Error:\n  `words[0]`: ")
    assert served.get("/v1/models/model") == {}
    assert served.get("/v1/models")["data"][0]["id"] == "Words"
    assert served.get("/v1/engine")["slots"] == 2


# -- when its client leaves --------------------------------------------------------------------


def ended(served: Served, request_id: str) -> dict[str, Any]:
    """Wait until a request has ended; there is no event for it across processes."""
    deadline = time.monotonic() + LIMIT  # noqa: TID251
    while time.monotonic() < deadline:  # noqa: TID251
        account = served.get(f"/v1/requests/{request_id}")
        if account.get("phase") in {"finished", "cancelled", "failed", "quarantined"}:
            return account
        time.sleep(0.01)  # noqa: TID251
    raise AssertionError(f"it did not end: {account}")


@pytest.mark.parametrize("kind", ["sync", "watches", "polls", "answer"])
async def test_its_work_stops(anything: Served, kind: str) -> None:
    """Sync code, in each way that it can hear of it; more moments are in test_leaving_sockets."""
    inputs = {"do": kind, "seconds": 0.05 if kind == "answer" else 60, "chunks": 1000, "name": kind}
    async with open_request(
        "POST", anything.url + PREDICT, json=inputs, headers={"x-request-id": kind}
    ) as client:
        if kind == "answer":
            await client.read_chunk()
        else:
            await anyio.to_thread.run_sync(in_predict, anything, kind)
        await client.leave(Leave.FIN)

    account = await anyio.to_thread.run_sync(ended, anything, kind)
    assert (account["phase"], account["reason"]) == ("cancelled", "client_disconnect")
    assert account["proof"] == "joined"
    assert account["told_after"] < 0.5
    assert account["proved_after"] < 1
    closed = await anyio.to_thread.run_sync(ask, anything, "closings")
    assert (kind in closed.json()) is (kind == "answer")


def in_predict(served: Served, request_id: str) -> None:
    while served.get(f"/v1/requests/{request_id}").get("phase") != "prefill":
        pass


async def test_the_example_of_the_documentation_runs_as_it_is_written() -> None:
    with serving(str(MODELS / "seed.py"), "--access-log", "json") as served:
        url, mine = served.url + PREDICT, {"x-request-id": "left"}
        async with open_request("POST", url, json={}, headers=mine) as client:
            assert await client.read_chunk() == b"0"
            await client.leave(Leave.FIN)
        account = await anyio.to_thread.run_sync(ended, served, "left")
        served.signal(signal.SIGTERM)
        status, log = await anyio.to_thread.run_sync(served.wait)

    assert (account["reason"], account["proof"]) == ("client_disconnect", "joined")
    assert "Cancelled (during gen)." in log
    assert "Traceback" not in log
    lines = {line["id"]: line for line in access_lines(log)}
    assert (lines["left"]["status"], lines["left"]["path"]) == (499, PREDICT)
    assert status == 0
