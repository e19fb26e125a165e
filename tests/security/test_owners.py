"""A request is looked at and cancelled by its own client, by the operator, and by nobody else."""

import json
import logging
from collections.abc import Callable

import anyio
import pytest
from starlette.responses import Response

from streamkit.server.app import Application
from streamkit.server.settings import Settings
from streamkit.testing import Exchange
from tests.asgi.socket_exchange import SocketExchange
from tests.server.serving import serving

KEY = "the-operators-own-key"
STEP = 0.02
Make = Callable[..., Exchange]


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def look(app: Application, path: str, **headers: str) -> Exchange:
    return await Exchange(app, method="GET", path=path, headers=headers).run()


async def cancel(app: Application, request_id: str, **headers: str) -> Exchange:
    return await Exchange(app, path=f"/v1/requests/{request_id}/cancel", headers=headers).run()


def token_of(exchange: Exchange) -> str:
    return exchange.headers_received["x-request-token"]


# -- without a key -----------------------------------------------------------------------------


async def test_without_a_key_everybody_may_ask_and_no_answer_has_a_token(
    make_app, generate: Make
) -> None:
    app = make_app()

    async with generate(app, headers={"x-request-id": "a"}, max_tokens=500, stream=True) as running:
        await anyio.sleep(2.5 * STEP)
        assert (await look(app, "/v1/requests")).status == 200
        assert (await look(app, "/v1/requests/a")).status == 200
        assert (await cancel(app, "a")).status == 200

    assert "x-request-token" not in running.headers_received


# -- the operator ------------------------------------------------------------------------------


async def test_the_operator_sees_and_cancels_every_request(make_app, generate: Make) -> None:
    app = make_app(operator_key=KEY)

    async with generate(app, headers={"x-request-id": "a"}, max_tokens=500, stream=True) as running:
        await anyio.sleep(2.5 * STEP)
        listed = await look(app, "/v1/requests", **bearer(KEY))
        one = await look(app, "/v1/requests/a", **bearer(KEY))
        cut = await cancel(app, "a", **bearer(KEY))

    assert [each["id"] for each in json.loads(listed.data)["requests"]] == ["a"]
    assert json.loads(one.data)["phase"] == "decode"
    assert json.loads(cut.data) == {"id": "a", "outcome": "cancelled"}
    assert not running.completed
    assert (await cancel(app, "nobody", **bearer(KEY))).status == 404


NO_KEY: dict[str, dict[str, str]] = {
    "nothing": {},
    "another key": bearer("not-the-operators-key"),
    "its beginning": bearer(KEY[:-1]),
    "more than it": bearer(KEY + "x"),
    "nothing after the scheme": {"authorization": "Bearer"},
    "another scheme": {"authorization": f"Basic {KEY}"},
    "no scheme": {"authorization": KEY},
    "not ASCII": bearer("schlüssel"),
    "where the token belongs": {"x-request-token": KEY},
    "an empty token": {"x-request-token": ""},
}


@pytest.mark.parametrize("headers", NO_KEY.values(), ids=NO_KEY)
async def test_whoever_has_neither_key_nor_token_is_401_and_learns_nothing(
    make_app, generate: Make, headers: dict[str, str]
) -> None:
    app = make_app(operator_key=KEY)
    async with generate(app, headers={"x-request-id": "a"}, max_tokens=10, stream=True) as running:
        await anyio.sleep(2.5 * STEP)

        answers = [
            await look(app, "/v1/requests", **headers),
            await look(app, "/v1/requests?limit=nonsense", **headers),
            await look(app, "/v1/requests/a", **headers),
            await look(app, "/v1/requests/nobody", **headers),
            await cancel(app, "a", **headers),
            await cancel(app, "nobody", **headers),
        ]

    assert {each.status for each in answers} == {401}
    assert {each.headers_received["www-authenticate"] for each in answers} == {"Bearer"}
    assert len({each.data for each in answers[:2]}) == len({each.data for each in answers[2:]}) == 1
    assert json.loads(answers[0].data)["error"]["type"] == "unauthorized"
    assert running.completed


# -- a request's own token ---------------------------------------------------------------------


@pytest.mark.parametrize("present", ["bearer", "header"])
async def test_a_client_sees_and_cancels_its_own_request_and_no_other(
    make_app, generate: Make, present: str
) -> None:
    app = make_app(operator_key=KEY)

    def mine() -> dict[str, str]:
        token = token_of(my)
        return bearer(token) if present == "bearer" else {"x-request-token": token}

    async with (
        generate(app, headers={"x-request-id": "mine"}, max_tokens=500, stream=True) as my,
        generate(app, headers={"x-request-id": "other"}, max_tokens=10, stream=True) as other,
    ):
        await anyio.sleep(2.5 * STEP)
        for path in ("/v1/requests", "/v1/requests/other", "/v1/requests/nobody"):
            assert (await look(app, path, **mine())).status == 401
        assert (await cancel(app, "other", **mine())).status == 401
        assert json.loads((await look(app, "/v1/requests/mine", **mine())).data)["id"] == "mine"
        cut = await cancel(app, "mine", **mine())

    assert json.loads(cut.data) == {"id": "mine", "outcome": "cancelled"}
    assert other.completed
    account = await look(app, "/v1/requests/mine", **mine())
    assert json.loads(account.data)["reason"] == "requested"


async def test_every_form_of_answer_has_a_token_of_its_own(make_app, generate: Make) -> None:
    app = make_app(operator_key=KEY)
    chat = {"model": "fake", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}

    answers = [
        await generate(app, max_tokens=1).run(),
        await generate(app, max_tokens=1, stream=True).run(),
        await generate(app, max_tokens=1, stream=True, events=True).run(),
        await Exchange(app, path="/v1/chat/completions", json=chat).run(),
    ]

    for each in answers:
        own = {"x-request-token": token_of(each)}
        request_id = each.headers_received["x-request-id"]
        assert (await look(app, f"/v1/requests/{request_id}", **own)).status == 200
    assert len({token_of(each) for each in answers}) == len(answers)
    assert min(len(token_of(each)) for each in answers) >= 128 / 6  # bits in a character
    assert "x-request-token" not in (await look(app, "/health/live")).headers_received


async def test_a_model_class_has_owners_too_and_can_forge_no_token(serve, ask) -> None:
    class Model:
        def predict(self) -> Response:
            return Response("x", headers={"X-Request-Token": "forged", "x-request-id": "forged"})

    app = serve(Model, operator_key=KEY)

    answer = await ask(app).run()

    named = [name for name, _ in answer.sent[0].message["headers"] if name == b"x-request-token"]
    assert (len(named), token_of(answer) == "forged") == (1, False)
    path = f"/v1/requests/{answer.headers_received['x-request-id']}"
    assert (await look(app, path, **{"x-request-token": token_of(answer)})).status == 200
    assert (await look(app, path, **{"x-request-token": "forged"})).status == 401


async def test_a_websocket_is_told_its_token_with_the_handshake(serve) -> None:
    class Model:
        async def websocket(self, websocket) -> None:
            async for text in websocket.iter_text():
                await websocket.send_text(text)

    app = serve(Model, operator_key=KEY)
    async with SocketExchange(app, "a", path="/v1/websocket") as exchange:
        await exchange.wait_sent(1)
        told = dict(exchange.sent[0]["headers"])
        request_id, token = (told[b"x-request-" + each].decode() for each in (b"id", b"token"))

        assert (await cancel(app, request_id)).status == 401
        assert (await cancel(app, request_id, **bearer(token))).status == 200

    assert exchange.closed == (1008, "requested")


# -- ids that clients choose -------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, KEY], ids=["without a key", "with a key"])
async def test_the_id_of_a_running_request_cannot_be_taken(
    make_app, generate: Make, key: str | None
) -> None:
    app = make_app(operator_key=key)
    async with generate(app, headers={"x-request-id": "a"}, max_tokens=10, stream=True) as first:
        await anyio.sleep(2.5 * STEP)

        second = await generate(app, headers={"x-request-id": "a"}, max_tokens=2).run()
        theirs = second.headers_received["x-request-id"]
        own = bearer(token_of(second)) if key else {}

        assert theirs != "a"
        assert (await cancel(app, theirs, **own)).status == 200
        if key:
            assert (await cancel(app, "a", **own)).status == 401

    assert (first.headers_received["x-request-id"], first.completed) == ("a", True)


async def test_who_reuses_an_id_gets_nothing_of_the_request_that_had_it(
    make_app, generate: Make
) -> None:
    app = make_app({"slots": 1}, operator_key=KEY)
    named = {"x-request-id": "a"}
    first = await generate(app, headers=named, max_tokens=3).run()
    invalid = await generate(app, headers=named, prompt="").run()
    tokens = [token_of(each) for each in (first, invalid)]

    seen = [(await look(app, "/v1/requests/a", **bearer(each))).status for each in tokens]
    assert seen == [200, 401]

    async with generate(app, headers=named, max_tokens=500, stream=True) as second:
        await anyio.sleep(2.5 * STEP)
        tokens.append(token_of(second))
        asked = [(await cancel(app, "a", **bearer(each))).status for each in tokens]
    assert asked == [401, 401, 200]
    seen = [(await look(app, "/v1/requests/a", **bearer(each))).status for each in tokens]
    assert seen == [401, 401, 200]


async def test_a_late_answer_has_not_the_token_of_who_took_its_id_meanwhile(
    make_app, generate: Make
) -> None:
    """Of a cancelled request the books may be closed before its last word goes out."""
    app = make_app(operator_key=KEY)
    named = {"x-request-id": "a"}
    async with Exchange(
        app,
        path="/generate",
        body=[b"{", b"}"],
        headers=named,
        leaves_before_body_ends=True,
        leaves_after_seconds=100,
    ) as first:
        await anyio.sleep(1)
        app.runner.cancel("a")
        async with generate(app, headers=named, max_tokens=500, stream=True) as second:
            await anyio.sleep(2.5 * STEP)
            asked = await cancel(app, "a", **bearer(token_of(first)))
            app.runner.cancel("a")

    assert second.headers_received["x-request-id"] == "a"
    assert asked.status == 401


async def test_a_token_is_forgotten_with_its_request(make_app, generate: Make) -> None:
    app = make_app(operator_key=KEY, remembered=2)

    answers = [await generate(app, max_tokens=1).run() for _ in range(4)]

    paths = [f"/v1/requests/{each.headers_received['x-request-id']}" for each in answers]
    seen = [
        (await look(app, path, **bearer(token_of(each)))).status
        for path, each in zip(paths, answers, strict=True)
    ]
    assert seen == [401, 401, 200, 200]
    assert (await look(app, paths[0], **bearer(KEY))).status == 404
    table = app.runner.in_flight
    assert (len(table._of_running), len(table._of_ended)) == (0, 2)


# -- where neither must be read ----------------------------------------------------------------


async def test_what_is_open_to_all_names_no_request_and_no_secret(
    make_app, generate: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = make_app(operator_key=KEY)
    async with generate(app, headers={"x-request-id": "hers"}, max_tokens=99, stream=True) as hers:
        await anyio.sleep(2.5 * STEP)
        paths = ("/metrics", "/v1/engine", "/health/live", "/health/ready", "/v1/models")
        answers = [await look(app, path) for path in paths]
        told = await look(app, "/v1/requests/hers", **bearer(KEY))

    assert {each.status for each in answers} == {200}
    assert "hers" not in "".join(each.text for each in answers)
    said = caplog.text + told.text + repr(app) + "".join(each.text for each in answers)
    assert KEY not in said
    assert token_of(hers) not in said


def test_no_settings_that_are_shown_show_the_key() -> None:
    shown = repr(Settings(operator_key=KEY)) + str(Settings(operator_key=KEY))

    assert KEY not in shown
    assert "operator_key" in shown


# -- a process ---------------------------------------------------------------------------------


@pytest.mark.realtime
def test_a_server_that_others_reach_without_a_key_warns() -> None:
    with serving("--host", "0.0.0.0") as served:
        served.signal()
        _, log = served.wait()

    assert "may list and cancel all requests: set STREAMKIT_OPERATOR_KEY" in log
