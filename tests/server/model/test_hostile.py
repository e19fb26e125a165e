"""Models that resist, each in a process of its own: contained, reported, bounded, and ended."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from streamkit.testing import open_request
from tests.server.serving import LIMIT, Served, serving

from .watching import ENDED, assert_next_is_served, engine_has, get, until

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(60)]

END_LIMIT = 25.0  # seconds; three times five for what swallows its cancel, next to none for others
STREAMS = ("AsyncGenerators", "Generators")
KINDS = ("Coroutines", "Functions", *STREAMS)
ASYNC = ("Coroutines", "AsyncGenerators")
ERRORS = (
    "ValueError",
    "StopIteration",
    "StopAsyncIteration",
    "CancelledError",
    "SystemExit",
    "KeyboardInterrupt",
    "BaseException",
    "GeneratorExit",
)
FIXED = b'{"error": "Internal Server Error (in model/chainlet)."}'
LEAVING: dict[str, list[list[Any]]] = {
    "Coroutines": [["swallow", 1], ["spawn"], ["group"]],
    "Functions": [],
    "AsyncGenerators": [["swallow", 1], ["spawn"], ["group"], ["yield in finally"]],
    "Generators": [["yield in finally"]],
}
RAISING = [["raise in finally", error] for error in ("ValueError", "SystemExit", "BaseException")]
_ids = count()


@dataclass
class Hostile:
    """A process with one class of `models/hostile.py`."""

    served: Served
    kind: str

    @asynccontextmanager
    async def open(
        self, do: list[Any], path: str = "/predict", chunks: int = 0
    ) -> AsyncIterator[Any]:
        body, mine = {"do": do, "chunks": chunks}, {"x-request-id": f"hostile-{next(_ids)}"}
        url = self.served.url + path
        async with open_request("POST", url, json=body, headers=mine, timeout=LIMIT) as client:
            client_id = mine["x-request-id"]
            yield client, client_id

    async def left(self, do: list[Any], path: str = "/predict", chunks: int = 0) -> dict[str, Any]:
        """Its books, after its client has left while it was in the middle of that."""
        async with self.open(do, path, chunks) as (client, request_id):
            await until(lambda: self.is_in(request_id, "decode" if chunks else "prefill"))
            for _ in range(chunks):
                await client.read_chunk()
            await client.leave()
        return await self.ended(request_id)

    async def ended(self, request_id: str) -> dict[str, Any]:
        async def is_over() -> bool:
            return (await get(self.served, f"/v1/requests/{request_id}"))["phase"] in ENDED

        await until(is_over)
        return await get(self.served, f"/v1/requests/{request_id}")

    async def is_in(self, request_id: str, phase: str) -> bool:
        account = await get(self.served, f"/v1/requests/{request_id}")
        return account.get("phase") == phase

    async def assert_next_is_served(self, path: str = "/predict") -> None:
        await assert_next_is_served(self.served, path, do=["nothing"], chunks=0)
        assert await engine_has(self.served, running=0, queued=0, quarantined=0)

    async def terminate(self, expected: int = 0) -> str:
        """End it by SIGTERM; its log."""
        self.served.signal()
        status, log = await anyio.to_thread.run_sync(self.served.wait, END_LIMIT)
        assert status == expected
        return log


@contextmanager
def hostile(kind: str, *flags: str) -> Iterator[Hostile]:
    with serving(f"tests.server.model.models.hostile:{kind}", *flags) as served:
        yield Hostile(served, kind)


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Hostile]]:
    """One of each class, for what they are to survive."""
    with ExitStack() as stack:
        yield {kind: stack.enter_context(hostile(kind)) for kind in KINDS}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_it_raises_is_its_own_failure(
    models: dict[str, Hostile], kind: str, error: str
) -> None:
    model = models[kind]

    async with model.open(["raise", error]) as (client, request_id):
        head, body = await client.read_head(), await client.read_body()

    assert head.status == 500
    if error != "GeneratorExit":  # the word with which a loop drops its tasks
        assert body == FIXED
        assert head.headers["x-baseten-error-code"] == "600"
        account = await model.ended(request_id)
        assert (account["phase"], account["reason"]) == ("failed", "error")
    await model.assert_next_is_served()


@pytest.mark.parametrize("do", [*(["raise", error] for error in ERRORS), ["wrong chunk"]], ids=str)
@pytest.mark.parametrize("kind", STREAMS)
async def test_whatever_a_stream_raises_later_cuts_its_answer(
    models: dict[str, Hostile], kind: str, do: list[str]
) -> None:
    model = models[kind]

    async with model.open(do, chunks=1) as (client, request_id):
        assert (await client.read_head()).status == 200
        assert await client.read_body() == b"chunk "
        assert not client.ended_cleanly

    if do[-1] != "GeneratorExit":
        assert (await model.ended(request_id))["phase"] == "failed"
    await model.assert_next_is_served()


@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_it_does_while_its_client_leaves_the_next_is_served(
    models: dict[str, Hostile], kind: str
) -> None:
    model = models[kind]

    for do in [*RAISING, *LEAVING[kind]]:
        for chunks in (0, 1) if kind in STREAMS else (0,):
            account = await model.left(do, chunks=chunks)
            assert (account["phase"], account["reason"]) == ("cancelled", "client_disconnect")
            assert account["proof"] == "joined"
            await model.assert_next_is_served()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lock_that_it_holds_is_let_go_when_its_client_leaves(
    models: dict[str, Hostile], kind: str
) -> None:
    model = models[kind]

    for chunks in (0, 1) if kind in STREAMS else (0,):
        account = await model.left(["stay"], "/v1/completions", chunks)
        assert account["phase"] == "cancelled"
        await model.assert_next_is_served("/v1/completions")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_it_did_is_in_the_log_and_sigterm_ends_the_process(kind: str) -> None:
    with hostile(kind) as model:
        async with model.open(["raise", "ValueError"]) as (client, _):
            await client.read_body()
        # Behind a chunk: before it, a generator's thread may not have begun, and nothing unwinds.
        await model.left(["raise in finally", "ZeroDivisionError"], chunks=int(kind in STREAMS))
        if kind in ASYNC:
            async with model.open(["block", 1.0]) as (client, _):
                await client.read_body()
        if kind in STREAMS:
            async with model.open(["wrong chunk"]) as (client, _):
                await client.read_body()
        log = await model.terminate()

    assert log.count("failed in the model\n  Traceback") == 1
    assert log.count("failed after it was told to stop\n  Traceback") == 1
    for error in ("ValueError: hostile", "ZeroDivisionError: hostile"):
        assert log.count(error) == 1
    assert ("the event loop was blocked for" in log) is (kind in ASYNC)
    assert ("a ByteStream sends str or bytes, its source yielded set" in log) is (kind in STREAMS)


async def test_one_that_blocks_the_loop_is_measured(models: dict[str, Hostile]) -> None:
    model = models["Coroutines"]
    async with model.open(["block", 1.0]) as (client, _):
        assert await client.read_body()
    async with open_request("GET", model.served.url + "/metrics") as client:
        metrics = (await client.read_body()).decode()

    blocked = re.search(r"^streamkit_loop_blocked_seconds_total (\S+)$", metrics, re.MULTILINE)
    assert blocked is not None
    assert 0.4 < float(blocked[1]) < 5


# -- what takes long ---------------------------------------------------------------------------


async def check_a_slot_in_quarantine(kind: str) -> None:
    """A thread in C holds its slot; others wait for it, and get it when that ends."""
    with hostile(kind) as model:
        account = await model.left(["block", 6.0])
        assert (account["phase"], account["proof"]) == ("quarantined", None)
        assert await engine_has(model.served, running=1, quarantined=1)
        assert await get(model.served, "/health/live") == {"status": "alive"}
        async with model.open(["nothing"]) as (client, _):
            assert (await client.read_head()).status == 200
            assert await client.read_body()
        assert (await model.ended(account["id"]))["phase"] == "cancelled"
        await model.assert_next_is_served()
        log = await model.terminate()

    assert "its slot is quarantined until that ends" in log
    assert "hostile.py" in log  # the line at which it was


async def check_its_end(kind: str, do: list[Any]) -> None:
    """SIGTERM ends the process where the model never would."""
    with hostile(kind, "--drain-grace", "0.5") as model:
        async with model.open(do) as (client, request_id):
            await until(lambda: model.is_in(request_id, "prefill"))
            await client.leave()
        log = await model.terminate()

    assert "SIGTERM: draining" in log


async def test_a_loop_that_is_blocked_for_good_is_reported_and_does_not_keep_the_process() -> None:
    with hostile("Coroutines", "--drain-grace", "0.5") as model:
        async with model.open(["block", 60]) as (client, _):
            await anyio.sleep(0.5)  # nobody can be asked whether it is there
            await client.leave()
        log = await model.terminate(1)

    assert re.search(r"the event loop has been blocked for 5 s, at \S*hostile\.py:\d+ in ", log)
    assert re.search(r"the event loop is blocked, at \S*hostile\.py:\d+ in .*: giving it up", log)


BLOCKED_LOAD = """
import sys, time
class Model:
    async def load(self):
        sys.stderr.write("blocked\\n")
        sys.stderr.flush()
        time.sleep(60)
    def predict(self, inputs): ...
"""


async def test_an_async_load_that_blocks_does_not_keep_a_signal_waiting(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(BLOCKED_LOAD)
    command = [sys.executable, "-m", "streamkit.server.cli", "serve", "--port", "0", "model.py"]
    async with await anyio.open_process(command, cwd=tmp_path, stdout=None) as process:
        assert process.stderr
        lines = TextReceiveStream(process.stderr)
        log = ""
        async for text in lines:
            log += text
            if "blocked" in text and "giving it up" not in log:
                process.send_signal(signal.SIGINT)

        assert await process.wait() == 1
    assert re.search(r"the event loop is blocked, at \S*model\.py:7 in .*: giving it up", log)


async def test_a_signal_that_a_library_takes_is_taken_back() -> None:
    with hostile("Coroutines") as model:

        async def answers(do: str) -> bool:
            async with model.open([do]) as (client, _):
                return (await client.read_head()).status == 200

        assert await answers("take SIGTERM")

        async def is_back() -> bool:
            return not await answers("has SIGTERM")

        await until(is_back)
        log = await model.terminate()

    assert "something took SIGTERM: taken back" in log
    assert "SIGTERM: draining" in log


async def test_what_never_ends_is_quarantined_and_does_not_keep_the_process() -> None:
    async with anyio.create_task_group() as tasks:  # each of them takes its time
        tasks.start_soon(check_a_slot_in_quarantine, "Functions")
        tasks.start_soon(check_a_slot_in_quarantine, "Generators")
        tasks.start_soon(check_its_end, "Coroutines", ["swallow", 10**9])
        tasks.start_soon(check_its_end, "AsyncGenerators", ["swallow", 10**9])
        tasks.start_soon(check_its_end, "Functions", ["loop"])
        tasks.start_soon(check_its_end, "Generators", ["block", 60])
