"""OpenAI's own client, unmodified, on real sockets: what it gets, what it raises, how it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import httpx
import pytest

from tests.lazily import Lazily

from .serving import Served, serving

if TYPE_CHECKING:
    import openai
    from openai import AsyncOpenAI, AsyncStream
else:
    openai = Lazily("openai")  # half a second

pytestmark = [pytest.mark.realtime, pytest.mark.asyncio(loop_scope="module")]

CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "a b c"}]}
TEXT: dict[str, Any] = {"model": "fake", "prompt": "a b c"}
SAID = "high low hard call list"
LONG = 5000
LIMIT = 10.0


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("--heartbeat=0.05", "--drain-grace=0", slots=4, step_ms=5) as server:
        yield server


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    url = f"{served.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


# -- what it gets ------------------------------------------------------------------------------


async def test_it_lists_the_models(client: AsyncOpenAI) -> None:
    [model] = (await client.models.list()).data

    assert model.id == "fake"
    assert await client.models.retrieve("fake") == model
    with pytest.raises(openai.NotFoundError) as got:
        await client.models.retrieve("gpt-4o")
    assert got.value.code == "model_not_found"


async def test_it_reads_a_whole_answer(client: AsyncOpenAI) -> None:
    chat = await client.chat.completions.create(
        **CHAT, max_tokens=3, n=2, logprobs=True, top_logprobs=1
    )
    text = await client.completions.create(**TEXT, max_tokens=5, logprobs=1)

    assert [choice.index for choice in chat.choices] == [0, 1]
    first = chat.choices[0]
    assert (first.message.role, first.finish_reason) == ("assistant", "length")
    assert first.logprobs is not None
    told = [each.token for each in first.logprobs.content or ()]
    assert "".join(told) == first.message.content
    assert chat.usage is not None
    assert (chat.usage.completion_tokens, chat.usage.total_tokens) == (6, 11)
    assert (text.choices[0].text, text.choices[0].finish_reason) == (SAID, "length")


async def test_it_reads_a_stream_with_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        **CHAT, max_tokens=4, n=2, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    whole = await client.chat.completions.create(**CHAT, max_tokens=4, n=2)

    assert chunks[-1].usage == whole.usage
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


async def test_its_own_helper_understands_the_stream(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(**CHAT, max_tokens=500, stop=" and") as stream:
        events = [event.type async for event in stream]
        final = await stream.get_final_completion()

    assert "content.done" in events
    assert final.choices[0].finish_reason == "stop"
    assert " and" not in (final.choices[0].message.content or "")


async def test_comments_in_a_silence_are_nothing_to_it(client: AsyncOpenAI) -> None:
    prompt = "w " * 512 * 40  # 0.2 s of prefill, and a heartbeat of 0.05 s
    stream = await client.completions.create(model="fake", prompt=prompt, max_tokens=2, stream=True)

    assert len([chunk async for chunk in stream]) == 3


async def test_several_prompts_and_a_stop_string(client: AsyncOpenAI, served: Served) -> None:
    text = await client.completions.create(
        model="fake", prompt=["a b c", "a b c"], max_tokens=LONG, stop=" hard"
    )

    assert [choice.text for choice in text.choices] == ["high low"] * 2
    assert {choice.finish_reason for choice in text.choices} == {"stop"}
    account = await ended(served, text.id.removeprefix("cmpl-"))
    assert (account["phase"], account["reason"], account["proof"]) == ("finished", None, "observed")


# -- what it raises ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"), [({"tools": [{"type": "function"}]}, "tools"), ({"n": 0}, "n")]
)
async def test_it_raises_what_fits_a_bad_request(client: AsyncOpenAI, body: Any, param) -> None:
    with pytest.raises(openai.BadRequestError) as got:
        await client.chat.completions.create(**CHAT, extra_body=body)

    assert (got.value.status_code, got.value.param) == (400, param)
    assert got.value.type == "invalid_request_error"


async def cancel(served: Served, request: str) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{served.url}/v1/requests/{request}/cancel")
        assert answer.json()["outcome"] == "cancelled"


async def test_it_raises_when_a_stream_is_cancelled(client: AsyncOpenAI, served: Served) -> None:
    stream = await client.chat.completions.create(**CHAT, max_tokens=LONG, stream=True)
    await anext(stream)
    await cancel(served, stream.response.headers["x-request-id"])

    with pytest.raises(openai.APIError, match="the request was cancelled") as got:
        [chunk async for chunk in stream]

    assert got.value.code == "requested"


async def error_of(asked: Awaitable[object]) -> openai.APIError:
    with pytest.raises(openai.APIError) as got:
        await asked
    return got.value


async def test_it_raises_when_a_whole_answer_is_cancelled(
    client: AsyncOpenAI, served: Served
) -> None:
    headers = {"x-request-id": "whole"}
    asked = client.completions.create(**TEXT, max_tokens=LONG, extra_headers=headers)
    async with asyncio.TaskGroup() as tasks:
        error = tasks.create_task(error_of(asked))
        await running(served)
        await cancel(served, "whole")

    assert isinstance(error.result(), openai.APIStatusError)
    assert (error.result().status_code, error.result().code) == (499, "requested")


@pytest.mark.parametrize("stream", [False, True])
async def test_it_raises_when_the_server_goes_down(stream: bool) -> None:
    with serving("--drain-grace=0", step_ms=5) as served:
        async with (
            openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0) as client,
            asyncio.TaskGroup() as tasks,
        ):
            error = tasks.create_task(error_of(read(client, stream=stream)))
            await running(served)
            served.signal()

    assert error.result().code == "drain"
    assert isinstance(error.result(), openai.InternalServerError) is not stream


async def read(client: AsyncOpenAI, *, stream: bool) -> None:
    answer = await client.completions.create(**TEXT, max_tokens=LONG, stream=stream)
    if isinstance(answer, openai.AsyncStream):
        [chunk async for chunk in answer]


# -- how it leaves -----------------------------------------------------------------------------

Leave: TypeAlias = "Callable[[AsyncOpenAI], Awaitable[object]]"


async def begin(client: AsyncOpenAI) -> AsyncStream[Any]:
    stream = await client.chat.completions.create(**CHAT, max_tokens=LONG, n=2, stream=True)
    await anext(stream)
    return stream


async def break_off(client: AsyncOpenAI) -> None:
    stream = await begin(client)
    async with stream:
        async for _ in stream:
            break


async def close(client: AsyncOpenAI) -> None:
    await (await begin(client)).close()


async def leave_the_helper(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(**CHAT, max_tokens=LONG) as stream:
        async for _ in stream:
            break


async def cancel_the_reader(client: AsyncOpenAI) -> None:
    begun = asyncio.Event()

    async def read_on() -> None:
        async for _ in await begin(client):
            begun.set()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(read_on())
        await begun.wait()
        task.cancel()


async def cancel_the_wait(client: AsyncOpenAI) -> None:
    asked = client.completions.create(model="fake", prompt=["a", "b"], max_tokens=LONG)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(asked)
        await anyio.sleep(0.2)
        task.cancel()


async def time_out(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        await client.completions.create(**TEXT, max_tokens=LONG, timeout=0.2)


async def close_the_client(client: AsyncOpenAI) -> None:
    await begin(client)
    await client.close()


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
async def test_however_it_leaves_the_engine_stops(
    client: AsyncOpenAI, served: Served, leave: Leave
) -> None:
    await leave(client)

    account = await ended(served)
    assert (account["phase"], account["reason"]) == ("cancelled", "client_disconnect")
    assert account["told_after"] < 0.1  # that is one turn of a loop, on a machine that is busy
    assert account["proof"] == "observed"
    assert account["saved"] > 0
    engine = await get(served, "/v1/engine")
    assert (engine["running"], engine["queued"]) == (0, 0)


def leave_in_sync_code(served: Served, *, closes: bool) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused") as client:
        stream = client.chat.completions.create(**CHAT, max_tokens=LONG, stream=True)
        next(stream)
        if closes:
            stream.close()
            return
        with stream:
            for _ in stream:
                break


@pytest.mark.parametrize("closes", [True, False])
async def test_however_sync_code_leaves_the_engine_stops(served: Served, closes: bool) -> None:
    await anyio.to_thread.run_sync(partial(leave_in_sync_code, served, closes=closes))

    account = await ended(served)
    assert (account["reason"], account["proof"]) == ("client_disconnect", "observed")
    assert (await get(served, "/v1/engine"))["running"] == 0


# -- looking at the server ---------------------------------------------------------------------


async def get(served: Served, path: str) -> Any:
    async with httpx.AsyncClient() as http:
        return (await http.get(served.url + path, timeout=LIMIT)).json()


async def running(served: Served) -> None:
    """Return when the engine works."""
    with anyio.fail_after(LIMIT):
        while not (await get(served, "/v1/engine"))["tokens"]:
            await anyio.lowlevel.checkpoint()
        while not (await get(served, "/v1/engine"))["running"]:
            await anyio.lowlevel.checkpoint()


async def ended(served: Served, request: str | None = None) -> dict[str, Any]:
    """The books of a request, or of the last one, when they are closed."""
    with anyio.fail_after(LIMIT):
        while True:
            accounts = (await get(served, "/v1/requests?limit=1000"))["requests"]
            closed = [each for each in accounts if each["phase"] in ("finished", "cancelled")]
            if len(closed) == len(accounts) and (request is None or accounts[0]["id"] == request):
                return accounts[0]
            await anyio.lowlevel.checkpoint()
