"""Clients whose host has gone: no FIN, no RST, no acknowledgement; one bound ends them."""

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

BOUND = 3.0  # seconds; the least that can be set
BUSY_MACHINE = 1.5  # seconds
STEP = 0.02
LONG = 4_000  # words, one a step


@pytest.fixture(scope="module", params=["h11", "httptools"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    loop = {"h11": "asyncio", "httptools": "uvloop"}[request.param]
    flags = (f"--loss-bound={BOUND}", f"--http={request.param}", f"--loop={loop}")
    with serving(*flags, step_ms=STEP * 1000, prefill_tokens_per_step=100_000) as served:
        yield served


@pytest.fixture(scope="module")
def slow(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Its prompts take a step a word."""
    with serving(f"--loss-bound={BOUND}", step_ms=STEP * 1000, prefill_tokens_per_step=1) as slow:
        yield slow


async def vanish(served: Served, fault: str, words: int) -> dict:
    """Ask, vanish, and return the books when they say that it was noticed."""
    request_id = uuid.uuid4().hex
    ask = Ask(
        url=f"{served.url}/generate",
        json={"prompt": "a " * words, "max_tokens": 100_000, "stream": True},
        headers={"accept": "text/event-stream", "x-request-id": request_id},
    )
    account = {}

    async def until_noticed() -> None:
        while account.get("reason") is None:
            await anyio.sleep(0.1)
            account.update(await anyio.to_thread.run_sync(served.get, f"/v1/requests/{request_id}"))

    with anyio.fail_after(3 * BOUND):
        seen = await visit(ask, fault, stay=until_noticed)
    assert seen.reached, seen
    print(f"{fault}, {words} words: noticed {account['detected_after']:.2f} s after its arrival")
    return account


async def test_a_host_that_vanishes_while_tokens_come_is_gone_after_the_bound(
    served: Served,
) -> None:
    account = await vanish(served, "vanish@event:1", 1)

    assert (account["reason"], account["cancelled_in"]) == ("client_disconnect", "decode")
    assert account["detected_after"] < BOUND + BUSY_MACHINE
    assert (await anyio.to_thread.run_sync(served.get, "/v1/engine"))["running"] == 0


async def test_the_first_token_just_before_the_bound_begins_no_other_one(slow: Served) -> None:
    """The kernel's own limits begin anew with it: so it took 5.9 s."""
    account = await vanish(slow, "vanish@queued:0.05", int(0.8 * BOUND / STEP))

    assert (account["reason"], account["cancelled_in"]) == ("client_disconnect", "decode")
    assert account["detected_after"] < BOUND + BUSY_MACHINE


async def test_of_two_clients_that_wait_in_silence_only_the_vanished_one_is_gone(
    slow: Served,
) -> None:
    """Each is asked, and the kernel of the other one answers."""

    def wait() -> None:
        answer = slow.generate(prompt="a " * int(0.8 * BOUND / STEP), max_tokens=1)
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() > BOUND  # the two share the engine's steps

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, wait)
        account = await vanish(slow, "vanish@queued:0.05", LONG)

    assert (account["reason"], account["cancelled_in"]) == ("client_disconnect", "prefill")
    assert account["detected_after"] < BOUND + BUSY_MACHINE
