"""Clients whose host has gone: no FIN, no RST, no acknowledgement; only the kernel can notice."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator

import anyio
import pytest

from streamkit.testing import Ask, visit

from .serving import Served, serving

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(sys.platform != "linux", reason="vanishing takes a filter of Linux's"),
]

BOUND = 3  # seconds, of the kernel's
LIMIT = 15.0


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    kernel = {"tcp-user-timeout": BOUND, "tcp-keepalive-idle": 1, "tcp-keepalive-interval": 1}
    flags = [f"--{name}={value}" for name, value in kernel.items()]
    with serving(*flags, step_ms=20, prefill_tokens_per_step=1) as served:
        yield served


@pytest.mark.parametrize(
    ("fault", "prompt", "phase"),
    [
        ("vanish@event:1", "a", "decode"),  # what is sent to it is not acknowledged
        ("vanish@queued:0.3", "a " * 4000, "prefill"),  # nothing is sent: keepalive asks
    ],
)
async def test_a_host_that_vanishes_holds_the_engine_for_a_bounded_time(
    served: Served, fault: str, prompt: str, phase: str
) -> None:
    request_id = uuid.uuid4().hex
    ask = Ask(
        url=f"{served.url}/generate",
        json={"prompt": prompt, "max_tokens": 100_000, "stream": True},
        headers={"accept": "text/event-stream", "x-request-id": request_id},
    )
    account = {}

    async def until_noticed() -> None:
        while account.get("reason") is None:
            await anyio.sleep(0.1)
            account.update(await anyio.to_thread.run_sync(served.get, f"/v1/requests/{request_id}"))

    with anyio.fail_after(LIMIT):
        seen = await visit(ask, fault, stay=until_noticed)

    assert seen.reached, seen
    assert (account["reason"], account["cancelled_in"]) == ("client_disconnect", phase)
    engine = await anyio.to_thread.run_sync(served.get, "/v1/engine")
    assert engine["running"] == 0
    print(f"{fault}: noticed {account['detected_after']:.2f} s after its arrival")
