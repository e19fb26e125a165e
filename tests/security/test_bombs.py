"""Small requests that would cost much: in memory, in time, in series of metrics."""

import json
import time
from collections.abc import Callable

import anyio
import pytest

from streamkit.testing import Exchange

Make = Callable[..., Exchange]
CHAT = "/v1/chat/completions"


def post(app, path: str, body: bytes) -> Exchange:
    return Exchange(app, path=path, body=body, headers={"content-type": "application/json"})


MANY = 300_000
BOMBS = {
    "mistakes in a list": (
        CHAT,
        lambda: b'{"messages":[%b]}' % b",".join([b"0"] * MANY),
        "messages.0: input should be an object",
    ),
    "fields that there are not": (
        "/generate",
        lambda: b'{"prompt":"a",%b}' % b",".join(b'"%d":0' % number for number in range(MANY)),
        "the body has 300000 mistakes, too many to list",
    ),
    "the same in a chat": (
        CHAT,
        lambda: b'{"messages":[],%b}' % b",".join(b'"%d":0' % number for number in range(MANY)),
        "mistakes, too many to list",
    ),
    "a name without end": ("/generate", lambda: b'{"prompt":"a","%b":0}' % (b"x" * MANY), "xxx"),
    "a stop string without end": (
        CHAT,
        lambda: b'{"messages":[{"role":"user","content":"a"}],"stop":"%b"}' % (b"x" * MANY),
        "must have 256 characters at most",
    ),
    "an integer without end": (
        CHAT,
        lambda: b'{"seed": %b}' % (b"9" * MANY),
        "number out of range",
    ),
    "an exponent without end": (
        "/generate",
        lambda: b'{"prompt":"a","n":1e%b}' % (b"9" * MANY),
        "",
    ),
    "depth without end": (CHAT, lambda: b'{"messages":%b' % (b"[" * MANY), "not valid JSON"),
}


@pytest.mark.parametrize(("path", "make_body", "said"), BOMBS.values(), ids=BOMBS)
async def test_a_body_full_of_mistakes_is_one_short_answer_soon(
    make_app, path: str, make_body: Callable[[], bytes], said: str
) -> None:
    app, body = make_app(), make_body()
    began = time.process_time()

    answer = await post(app, path, body).run()

    assert answer.status == 400
    message = json.loads(answer.data)["error"]["message"]
    assert said in message
    assert len(message) < 1000
    assert time.process_time() - began < 5
    assert app.runner.statistics().refused == {"invalid": 1}


async def test_nothing_that_clients_make_up_becomes_a_series_of_the_metrics(
    make_app, generate: Make
) -> None:
    app = make_app()

    async def series() -> list[str]:
        page = (await Exchange(app, method="GET", path="/metrics").run()).text
        return [line.rpartition(" ")[0] for line in page.splitlines() if line[:1] != "#"]

    async def one_of_each(made_up: str) -> None:
        await Exchange(app, method=made_up, path=f"/{made_up}").run()
        await Exchange(app, method="GET", path=f"/v1/models/{made_up}").run()
        await Exchange(app, method="GET", path=f"/v1/requests/{made_up}").run()
        await Exchange(app, path=f"/v1/requests/{made_up}/cancel").run()
        headers = {"x-request-id": made_up, "user-agent": made_up, "host": made_up}
        await generate(app, headers=headers, max_tokens=1, prompt=made_up).run()
        chat = {"model": made_up, "messages": [{"role": "user", "content": made_up}]}
        await Exchange(app, path=CHAT, json={**chat, "max_tokens": 1}).run()
        await Exchange(app, path=CHAT, json={made_up: made_up}).run()

    await one_of_each("made-up")
    await series()
    before = await series()
    for number in range(20):
        await one_of_each(f"another{number}")

    assert await series() == before
    assert not [line for line in before if "made-up" in line]


async def test_what_is_remembered_of_paths_and_requests_has_a_bound(
    make_app, generate: Make
) -> None:
    app = make_app(remembered=10)

    for number in range(300):
        await Exchange(app, method="GET", path=f"/{number}").run()
        await generate(app, max_tokens=1, headers={"x-request-id": f"r{number}"}).run()
    await anyio.sleep(1)

    assert len(app.runner.in_flight) == 0
    assert len(app.runner.in_flight.ended(1000)) == 10
    assert app._routes._find.cache_info().currsize <= 256
