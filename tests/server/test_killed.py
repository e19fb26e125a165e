"""A server that is killed with streams open: nothing of it is in the way of the next one."""

from __future__ import annotations

from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from streamkit.testing import open_request

from .serving import Served, serving

pytestmark = pytest.mark.realtime

STREAMS = 5


async def test_a_server_that_is_killed_while_it_streams_starts_anew_on_its_port() -> None:
    with serving(step_ms=5) as killed:
        port = urlsplit(killed.url).port
        async with anyio.create_task_group() as clients:
            for _ in range(STREAMS):
                clients.start_soon(read_until_cut, killed)
            await anyio.to_thread.run_sync(wait_until_all_run, killed)
            killed.process.kill()

    with serving(f"--port={port}", step_ms=5) as started:
        books = await anyio.to_thread.run_sync(counters, started)
        answer = await anyio.to_thread.run_sync(lambda: started.generate(max_tokens=3))
        started.signal()
        status, log = await anyio.to_thread.run_sync(started.wait)

    assert set(books.values()) == {0.0}, books
    assert answer.json()["usage"]["completion_tokens"] == 3
    assert status == 0
    assert "Traceback" not in log


async def read_until_cut(served: Served) -> None:
    """Its stream ends un-cleanly: what was cut must not look whole."""
    body = {"prompt": "a", "max_tokens": 100_000, "stream": True}
    async with open_request("POST", f"{served.url}/generate", json=body) as client:
        await client.read_head()
        while await client.read_chunk():
            pass
        assert not client.response.finished


def wait_until_all_run(served: Served) -> None:
    while served.get("/v1/engine")["tokens"] < 10 * STREAMS:
        pass


def counters(served: Served) -> dict[str, float]:
    """Of what was done since the start, by the server's books and by the engine's."""
    lines = httpx.get(f"{served.url}/metrics", timeout=10).text.splitlines()
    names = "requests_received", "tokens_produced", "engine_steps", "engine_tokens"
    wanted = {f"streamkit_{name}_total" for name in names}
    pairs = [line.rsplit(" ", 1) for line in lines if line.split(" ")[0] in wanted]
    assert len(pairs) == len(wanted)
    return {name: float(value) for name, value in pairs}
