"""OpenAI's own client through a gateway: the same texts, and leaving stops what is behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.docs.test_howto import HOWTO
from tests.lazily import Lazily

from .serving import Served, serving
from .test_openai_client import (
    CHAT,
    LIMIT,
    TEXT,
    Leave,
    break_off,
    cancel_the_reader,
    cancel_the_wait,
    close,
    close_the_client,
    ended,
    get,
    leave_the_helper,
    time_out,
)

if TYPE_CHECKING:
    import openai
    from openai import AsyncOpenAI
else:
    openai = Lazily("openai")

pytestmark = [pytest.mark.realtime, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def behind() -> Iterator[Served]:
    with serving("--drain-grace=0", slots=4, step_ms=5) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(behind: Served) -> Iterator[Served]:
    flags = ("--engine=upstream", "--drain-grace=0")
    with serving(*flags, base_url=f"{behind.url}/v1", slots=4, proof="streamkit") as server:
        yield server


@pytest.fixture
async def client(gateway: Served) -> AsyncIterator[AsyncOpenAI]:
    url = f"{gateway.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
async def test_it_gets_the_same_texts(client: AsyncOpenAI, behind: Served, stream: bool) -> None:
    async with openai.AsyncOpenAI(base_url=f"{behind.url}/v1", api_key="x") as direct:
        whole = await direct.chat.completions.create(**CHAT, max_tokens=6, n=2)

    texts = ["", ""]
    if stream:
        chunks = await client.chat.completions.create(**CHAT, max_tokens=6, n=2, stream=True)
        async for chunk in chunks:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    else:
        answer = await client.chat.completions.create(**CHAT, max_tokens=6, n=2)
        texts = [choice.message.content or "" for choice in answer.choices]
        assert answer.usage == whole.usage

    assert texts == [choice.message.content for choice in whole.choices]


async def test_a_stop_string_ends_it(client: AsyncOpenAI) -> None:
    limited = await client.completions.create(**TEXT, max_tokens=3, stop=" low")

    assert (limited.choices[0].text, limited.choices[0].finish_reason) == ("high", "stop")


@pytest.mark.parametrize(
    "leave",
    [
        break_off,
        close,
        leave_the_helper,
        cancel_the_reader,
        cancel_the_wait,
        time_out,
        close_the_client,
    ],
)
async def test_however_it_leaves_the_engine_behind_stops(
    client: AsyncOpenAI, gateway: Served, behind: Served, leave: Leave
) -> None:
    await leave(client)

    account = await ended(gateway)
    assert (account["phase"], account["reason"]) == ("cancelled", "client_disconnect")
    assert account["proof"] == "observed"
    assert (await ended(behind))["reason"] == "client_disconnect"
    engine = await get(behind, "/v1/engine")
    assert (engine["running"], engine["queued"]) == (0, 0)
    await anyio.sleep(0.05)  # ten steps
    assert (await get(behind, "/v1/engine"))["steps"] == engine["steps"]


async def test_the_gateway_of_the_how_to_says_what_the_page_says() -> None:
    page = (HOWTO / "put-a-gateway-in-front.md").read_text()
    assert "--engine-option slots=1 --engine-option proof=canary" in page
    with serving(slots=1) as server:
        options: dict[str, Any] = {"base_url": f"{server.url}/v1", "slots": 1, "proof": "canary"}
        with serving("--engine=upstream", **options) as gateway, anyio.fail_after(LIMIT):
            head = ["-H", "content-type: application/json", "-d"]
            curl = ["curl", "-sN", "-m", "1", f"{gateway.url}/v1/completions", *head]
            body = '{"prompt": "tell me", "max_tokens": 5000, "stream": true}'
            await anyio.run_process([*curl, body], check=False)
            account = await ended(gateway)

    assert (account["reason"], account["proof"]) == ("client_disconnect", "fenced")
