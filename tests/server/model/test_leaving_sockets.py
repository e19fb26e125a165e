"""A client leaves a real socket, in each way and at each moment: the model's work has stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from streamkit.testing import Leave, open_connection
from tests.server.serving import Served, serving

from .watching import AT_ONCE, Visit, assert_next_is_served, engine_has, until

pytestmark = pytest.mark.realtime

CLASSES = ("Coroutines", "Functions", "AsyncGenerators", "Generators")
WAYS = (Leave.FIN, Leave.RST, Leave.HALF_CLOSE)
PREDICT = "/predict"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[str, Served]]:
    """One for each class."""
    with ExitStack() as stack:
        started = {name: serving(f"tests.server.model.models.witness:{name}") for name in CLASSES}
        yield {name: stack.enter_context(process) for name, process in started.items()}


STAGES = {"preprocess": "preprocess", "predict": "prefill", "postprocess": "postprocess"}
MOMENTS = [
    *[("Coroutines", PREDICT, stage, phase) for stage, phase in STAGES.items()],
    *[("Functions", PREDICT, stage, phase) for stage, phase in STAGES.items()],
    ("Coroutines", PREDICT, "response first chunk", "postprocess"),
    ("Coroutines", PREDICT, "response second chunk", "postprocess"),
    ("Coroutines", "/v1/completions", "completions", "prefill"),
    ("Coroutines", "/v1/embeddings", "embeddings", "prefill"),
    ("Coroutines", "/v1/messages", "messages", "prefill"),
    ("Coroutines", "/v1/responses", "first chunk", "prefill"),
    ("Coroutines", "/v1/responses", "between", "decode"),
    ("AsyncGenerators", PREDICT, "first chunk", "prefill"),
    ("AsyncGenerators", PREDICT, "second chunk", "decode"),
    ("AsyncGenerators", PREDICT, "between", "decode"),
    ("AsyncGenerators", CHAT, "first chunk", "prefill"),
    ("AsyncGenerators", CHAT, "between", "decode"),
    ("AsyncGenerators", "/v1/responses", "asking", "decode"),
    ("Generators", PREDICT, "first chunk", "prefill"),
    ("Generators", PREDICT, "second chunk", "decode"),
    ("Generators", PREDICT, "between", "decode"),
    ("Generators", "/v1/messages", "second chunk", "decode"),
    ("Generators", "/v1/responses", "asking", "decode"),
]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(("kind", "path", "at", "phase"), MOMENTS)
async def test_the_work_stops_at_once(  # noqa: PLR0913, PLR0917 - a table's columns
    processes: dict[str, Served],
    tmp_path: Path,
    kind: str,
    path: str,
    at: str,
    phase: str,
    how: Leave,
) -> None:
    visit = Visit(processes[kind], tmp_path / "log", at, path)
    async with visit.open() as client:
        await visit.wait_there()
        await client.leave(how)
        account = await visit.wait_ended()

    assert (account["phase"], account["reason"]) == ("cancelled", "client_disconnect")
    assert account["cancelled_in"] == phase
    assert account["proof"] == "joined"
    assert account["tokens"] == account["delivered"] + account["undelivered"]
    assert len(visit.when("ended")) == len(visit.when("began")) > 0
    assert client.left_at is not None
    assert visit.when("ended")[-1] - client.left_at < AT_ONCE
    assert await engine_has(visit.served, running=0, queued=0, quarantined=0)
    await assert_next_is_served(visit.served, path, log=str(tmp_path / "next"), at="never")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("kind", CLASSES)
async def test_one_that_waits_for_a_slot_is_out_of_the_queue(
    processes: dict[str, Served], tmp_path: Path, kind: str, how: Leave
) -> None:
    moment = {"Coroutines": "predict", "Functions": "predict"}.get(kind, "second chunk")
    first = Visit(processes[kind], tmp_path / "first", moment)
    second = Visit(processes[kind], tmp_path / "second", moment)
    async with first.open() as holder:
        await first.wait_there()
        async with second.open() as waiter:
            await until(partial(engine_has, first.served, queued=1))
            await waiter.leave(how)
            account = await second.wait_ended()
        assert await engine_has(first.served, running=1, queued=0)
        assert (account["phase"], account["cancelled_in"]) == ("cancelled", "queued")
        assert second.when("there") == []
        assert (await first.account())["reason"] is None
        await holder.leave(how)
        await first.wait_ended()

    await assert_next_is_served(first.served, log=str(tmp_path / "next"), at="never")


@pytest.mark.parametrize("how", WAYS)
async def test_one_whose_body_is_being_read_is_in_the_books(
    processes: dict[str, Served], tmp_path: Path, how: Leave
) -> None:
    visit = Visit(processes["Coroutines"], tmp_path / "log", "never")
    async with open_connection(visit.served.url) as client:
        await client.send_request(
            "POST",
            PREDICT,
            json={"x": "y" * 5000},
            headers={"x-request-id": visit.id},
            first_bytes=3000,
        )
        await until(lambda: is_read(visit))
        await client.leave(how)
        account = await visit.wait_ended()

    assert (account["phase"], account["cancelled_in"]) == ("cancelled", "reading")
    await assert_next_is_served(visit.served, log=str(tmp_path / "next"), at="never")


async def is_read(visit: Visit) -> bool:
    return (await visit.account()).get("phase") == "reading"
