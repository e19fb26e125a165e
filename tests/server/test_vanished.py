"""Clients whose host has gone: no FIN, no RST, no acknowledgement; one bound ends them."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def bounded(*parser: str) -> Iterator[Served]:
    """Its prompts take a step a word."""
    flags = (f"--loss-bound={BOUND}", *parser)
    with serving(*flags, step_ms=STEP * 1000, prefill_tokens_per_step=1) as served:
        yield served


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
            await anyio.sleep(0.25)
            account.update(await anyio.to_thread.run_sync(served.get, f"/v1/requests/{request_id}"))

    with anyio.fail_after(3 * BOUND):
        seen = await visit(ask, fault, stay=until_noticed)
    assert seen.reached, seen
    print(f"{fault}, {words} words: noticed {account['detected_after']:.2f} s after its arrival")
    return account


async def vanish_while_tokens_come(served: Served) -> None:
    account = await vanish(served, "vanish@event:1", 1)

    assert (account["reason"], account["cancelled_in"]) == ("client_disconnect", "decode")
    assert account["detected_after"] < BOUND + BUSY_MACHINE


async def vanish_before_the_first_token(served: Served) -> None:
    """The kernel's own limits begin anew with it: so it took 5.9 s."""
    account = await vanish(served, "vanish@queued:0.05", int(0.8 * BOUND / STEP))

    assert (account["reason"], account["cancelled_in"]) == ("client_disconnect", "decode")
    assert account["detected_after"] < BOUND + BUSY_MACHINE


async def vanish_in_silence(served: Served) -> None:
    account = await vanish(served, "vanish@queued:0.05", LONG)

    assert (account["reason"], account["cancelled_in"]) == ("client_disconnect", "prefill")
    assert account["detected_after"] < BOUND + BUSY_MACHINE


async def wait_in_silence(served: Served) -> None:
    """It is there: its kernel answers when it is asked."""
    answer = await anyio.to_thread.run_sync(
        lambda: served.generate(prompt="a " * int(0.8 * BOUND / STEP), max_tokens=1)
    )
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() > BOUND  # those who wait share the engine's steps


async def test_the_first_token_just_before_the_bound_begins_no_other_one() -> None:
    with bounded("--http=h11", "--loop=asyncio") as served:
        async with anyio.create_task_group() as clients:
            clients.start_soon(vanish_while_tokens_come, served)
            await anyio.sleep(5 * STEP)  # its prompt is read by then
            clients.start_soon(vanish_before_the_first_token, served)
        assert (await anyio.to_thread.run_sync(served.get, "/v1/engine"))["running"] == 0


async def test_of_those_who_wait_in_silence_only_the_vanished_one_is_gone() -> None:
    with bounded("--http=httptools", "--loop=uvloop") as served:
        async with anyio.create_task_group() as clients:
            clients.start_soon(vanish_while_tokens_come, served)
            await anyio.sleep(5 * STEP)
            clients.start_soon(wait_in_silence, served)
            clients.start_soon(vanish_in_silence, served)
        assert (await anyio.to_thread.run_sync(served.get, "/v1/engine"))["running"] == 0
