"""A client need not wait for work that was cancelled and does not end."""

import json
import subprocess
import sys

import anyio
import httpx
import pytest

from streamkit._core import now
from tests.server.serving import ENVIRONMENT, LIMIT

STUBBORN = """
import anyio, asyncio

class Model:
    async def predict(self, inputs):
        yield "first"
        while True:
            try:
                await anyio.sleep(1000)
            except asyncio.CancelledError:
                pass
"""


async def test_a_coroutine_that_swallows_its_cancel_does_not_keep_the_answer(serve, ask) -> None:
    freed = anyio.Event()

    class Stubborn:
        async def predict(self, inputs):
            while not freed.is_set():
                try:
                    await freed.wait()
                except anyio.get_cancelled_exc_class():  # noqa: ASYNC103
                    pass

    app = serve(Stubborn, request_timeout=3.0)
    exchange = ask(app)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.run)
        await exchange.wait_head()
        assert exchange.status == 504
        assert 3 < now() < 10  # its grace is over, and its work still runs
        assert app.runner.slots.quarantined == 1
        freed.set()

    assert json.loads(exchange.data) == {"error": "the request did not finish before its deadline"}
    assert (app.runner.slots.taken, app.runner.slots.quarantined) == (0, 0)


@pytest.mark.realtime
def test_a_stream_that_swallows_its_cancel_is_cut_off(tmp_path) -> None:
    (tmp_path / "model.py").write_text(STUBBORN)
    flags = ["--port", "0", "--request-timeout", "0.2"]
    with subprocess.Popen(
        [sys.executable, "-m", "streamkit.server.cli", "serve", "model.py", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        text=True,
        cwd=tmp_path,
    ) as process:
        url = process.stdout.readline().split()[-1]
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{url}/predict", json={}, timeout=LIMIT)
        assert httpx.get(f"{url}/v1/engine").json()["quarantined"] == 1
        process.kill()
