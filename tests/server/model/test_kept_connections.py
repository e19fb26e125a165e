"""One request of a kept connection leaves nothing to the next one."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import anyio
import httpx
import pytest

from streamkit.runner._model import ModelCall
from streamkit.server.app import create_app
from streamkit.testing import serve_app
from tests.server.serving import LIMIT, serving

pytestmark = pytest.mark.realtime

KEPT = Path(__file__).with_name("models") / "kept.py"
PREDICT = "/v1/models/model:predict"
REQUESTS = 60
BODY = b'{"prompt": "hello"}'
REQUEST = (
    f"POST {PREDICT} HTTP/1.1\r\nhost: kept\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY
)


async def ask_pipelined(url: str, count: int) -> list[bytes]:
    """Send all requests before the first answer is read; return what the model said to each."""
    address = httpx.URL(url)
    assert address.port is not None
    came = b""
    async with await anyio.connect_tcp(address.host, address.port) as stream:
        await stream.send(REQUEST * count)
        with anyio.fail_after(LIMIT):
            while came.count(b"\r\n\r\n") < count or not came.endswith(b'"'):
                came += await stream.receive()
    return re.findall(rb'\r\n\r\n"(.*?)"', came)


async def test_requests_of_a_kept_connection_do_not_hold_each_other() -> None:
    app = create_app(target=str(KEPT))
    async with serve_app(app) as url:
        await app.service.wait_ready()
        await ask_pipelined(url, REQUESTS)

        gc.collect()
        held = sum(isinstance(each, ModelCall) for each in gc.get_objects())

    assert held < REQUESTS / 2  # a few, which cancelled timers name for some seconds


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_what_a_model_puts_into_its_context_is_not_there_for_the_next(http: str) -> None:
    with serving(str(KEPT), "--http", http) as served:
        said = await ask_pipelined(served.url, REQUESTS)

    assert said == [b"nobody"] * REQUESTS
