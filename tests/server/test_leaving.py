"""However a request is cut short, the engine stops, and whoever is left is told why."""

import json
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from streamkit.engines import FakeEngine
from streamkit.server.app import Application
from streamkit.testing import Exchange

STEP = 0.02
Make = Callable[..., Exchange]
FORMS = [
    pytest.param({}, id="json"),
    pytest.param({"stream": True}, id="raw"),
    pytest.param({"stream": True, "events": True}, id="events"),
]


async def assert_stopped(app: Application, generate: Make, get, **expected: object) -> dict:
    """One abort, proof of it, the slot free and a new request served at once; return its books."""
    await app.runner.in_flight.wait_idle()
    engine = app.runner.engine
    assert isinstance(engine, FakeEngine)
    account = await get(app, "/v1/requests/cut")
    assert {name: account[name] for name in expected} == expected
    books = await get(app, "/v1/engine")
    assert (books["running"], books["queued"]) == (0, 0)
    assert app.runner.statistics().violations == 0
    began = anyio.current_time()
    canary = await generate(app, max_tokens=1).run()
    assert canary.status == 200
    assert anyio.current_time() - began == pytest.approx(STEP)
    return account


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("seconds", "phase"),
    [
        pytest.param(2.5 * STEP, "queued", id="queued"),
        pytest.param(12.5 * STEP, "prefill", id="prefill"),
        pytest.param(20.5 * STEP, "decode", id="decode"),
    ],
)
async def test_a_client_that_leaves_stops_the_engine(
    make_app, generate: Make, get, form: dict, seconds: float, phase: str
) -> None:
    app = make_app({"slots": 1})
    mine = {"x-request-id": "cut"}

    async with generate(app, max_tokens=10):
        await anyio.lowlevel.checkpoint()
        left = await generate(
            app,
            headers=mine,
            prompt="w " * 2048,
            max_tokens=500,
            leaves_after_seconds=seconds,
            **form,
        ).run()

    assert left.left_at == pytest.approx(seconds)
    assert left.outcome == "returned"
    account = await assert_stopped(
        app,
        generate,
        get,
        phase="cancelled",
        reason="client_disconnect",
        cancelled_in=phase,
        told_after=0,
        proof="observed",
    )
    record = app.runner.engine.log.request("cut")
    assert record.aborts == 1
    assert account["tokens"] == record.tokens
    assert account["proved_after"] <= STEP


@pytest.mark.parametrize("form", FORMS[1:])
async def test_a_client_that_stops_reading_is_cut_off_after_a_while(
    make_app, generate: Make, get, form: dict
) -> None:
    app = make_app(write_stall=5.0)
    mine = {"x-request-id": "cut"}

    await generate(app, headers=mine, max_tokens=5000, stops_reading_after_chunks=3, **form).run()

    account = await assert_stopped(
        app, generate, get, reason="write_stalled", cancelled_in="sending", delivered=3
    )
    assert account["seconds"]["sending"] == pytest.approx(5, abs=1)


async def test_an_answer_that_nobody_reads_is_given_up_after_a_while(
    make_app, generate: Make, get
) -> None:
    app = make_app(write_stall=5.0)
    mine = {"x-request-id": "cut"}

    exchange = await generate(app, headers=mine, max_tokens=5, stops_reading_after_chunks=0).run()

    assert exchange.ended_at == pytest.approx(5, abs=1)
    await assert_stopped(
        app,
        generate,
        get,
        phase="cancelled",
        reason="write_stalled",
        cancelled_in="sending",
        tokens=5,
        delivered=0,
        saved=0,
    )


async def test_a_client_that_leaves_while_its_body_is_read_is_in_the_books(
    make_app, generate: Make, get
) -> None:
    app = make_app()

    await Exchange(
        app,
        path="/generate",
        body=b'{"prompt": ',
        headers={"x-request-id": "cut"},
        leaves_before_body_ends=True,
    ).run()

    await assert_stopped(app, generate, get, cancelled_in="reading", told_after=None, tokens=0)


@pytest.mark.parametrize("form", FORMS)
async def test_a_server_that_cancels_the_task_is_a_drain_and_not_the_clients_doing(
    make_app, generate: Make, get, form: dict
) -> None:
    app = make_app()
    async with generate(app, headers={"x-request-id": "cut"}, max_tokens=500, **form) as exchange:
        await anyio.sleep(3.5 * STEP)
        exchange.cancel()

    await assert_stopped(app, generate, get, reason="drain", cancelled_in="decode")


# -- asked for, over HTTP ----------------------------------------------------------------------


async def cancel(app: Application, status: int = 200) -> object:
    exchange = await Exchange(app, path="/v1/requests/cut/cancel").run()
    assert exchange.status == status
    return json.loads(exchange.data)


@pytest.mark.parametrize("form", FORMS)
async def test_an_explicit_cancel_before_the_first_byte_is_499(
    make_app, generate: Make, get, form: dict
) -> None:
    app = make_app()

    async with generate(
        app, headers={"x-request-id": "cut"}, prompt="w " * 5000, max_tokens=500, **form
    ) as exchange:
        await anyio.sleep(3.5 * STEP)
        assert await cancel(app) == {"id": "cut", "outcome": "cancelled"}

    assert exchange.status == 499
    assert exchange.headers_received["x-request-id"] == "cut"
    assert json.loads(exchange.data)["error"] == {
        "message": "the request was cancelled",
        "type": "cancelled",
        "code": "requested",
    }
    account = await assert_stopped(app, generate, get, reason="requested", cancelled_in="prefill")
    assert account["detail"] == "asked for over HTTP"


async def test_an_explicit_cancel_ends_a_stream_of_events_with_an_error(
    make_app, generate: Make, get
) -> None:
    app = make_app()

    async with generate(
        app, headers={"x-request-id": "cut"}, events=True, stream=True, max_tokens=500
    ) as exchange:
        await exchange.wait_chunks(3)
        await cancel(app)

    assert exchange.status == 200
    assert exchange.completed
    assert [event.event for event in exchange.events] == ["message"] * 3 + ["error"]
    error = exchange.events[-1].json()["error"]
    assert (error["type"], error["reason"]) == ("cancelled", "requested")
    await assert_stopped(app, generate, get, delivered=3)


async def test_an_explicit_cancel_cuts_a_raw_stream(make_app, generate: Make, get) -> None:
    app = make_app()

    async with generate(
        app, headers={"x-request-id": "cut"}, stream=True, max_tokens=500
    ) as exchange:
        await exchange.wait_chunks(3)
        await cancel(app)

    assert not exchange.completed
    await assert_stopped(app, generate, get, delivered=3)


async def test_cancelling_twice_aborts_once(make_app, generate: Make, get) -> None:
    app = make_app()

    async with generate(app, headers={"x-request-id": "cut"}, max_tokens=500):
        await anyio.sleep(3.5 * STEP)
        outcomes = [await cancel(app) for _ in range(2)]
    await app.runner.in_flight.wait_idle()
    outcomes.append(await cancel(app))

    assert [outcome["outcome"] for outcome in outcomes] == [
        "cancelled",
        "already_finished",
        "already_finished",
    ]
    assert app.runner.engine.log.request("cut").aborts == 1


async def test_cancelling_what_ended_by_itself_changes_nothing(
    make_app, generate: Make, get
) -> None:
    app = make_app()
    await generate(app, headers={"x-request-id": "cut"}, max_tokens=3).run()

    assert (await cancel(app))["outcome"] == "already_finished"
    assert (await get(app, "/v1/requests/cut"))["phase"] == "finished"


async def test_cancelling_what_nobody_knows_is_404(make_app) -> None:
    error = (await cancel(make_app(), status=404))["error"]

    assert (error["type"], error["code"]) == ("not_found", "not_found")


# -- deadline ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_a_deadline_before_the_first_byte_is_504(
    make_app, generate: Make, get, form: dict
) -> None:
    app = make_app(request_timeout=3.5 * STEP)

    exchange = await generate(
        app, headers={"x-request-id": "cut"}, prompt="w " * 5000, max_tokens=500, **form
    ).run()

    assert exchange.status == 504
    assert json.loads(exchange.data)["error"]["code"] == "deadline"
    assert exchange.ended_at == pytest.approx(3.5 * STEP)
    await assert_stopped(app, generate, get, reason="deadline", cancelled_in="prefill")


async def test_a_deadline_also_ends_the_wait_for_a_body(make_app) -> None:
    app = make_app(request_timeout=2.0)

    exchange = await Exchange(
        app,
        path="/generate",
        body=b"{",
        leaves_before_body_ends=True,
        leaves_after_seconds=100,
    ).run()

    assert exchange.status == 504
    assert exchange.ended_at == pytest.approx(2.0)


# -- drain -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_a_drain_before_the_first_byte_is_503(
    make_app, generate: Make, get, form: dict
) -> None:
    app = make_app()

    async with generate(
        app, headers={"x-request-id": "cut"}, prompt="w " * 5000, max_tokens=500, **form
    ) as exchange:
        await anyio.sleep(3.5 * STEP)
        await app.runner.drain(0)

    assert exchange.status == 503
    assert exchange.headers_received["retry-after"] == "1"
    assert json.loads(exchange.data)["error"]["code"] == "drain"
    account = await get(app, "/v1/requests/cut")
    assert (account["reason"], account["phase"]) == ("drain", "cancelled")


async def test_a_drain_refuses_new_requests_and_ends_streams_with_the_reason(
    make_app, generate: Make, get
) -> None:
    app = make_app()

    async with (
        anyio.create_task_group() as tasks,
        generate(app, events=True, stream=True, max_tokens=500) as exchange,
    ):
        await exchange.wait_chunks(3)
        assert (await get(app, "/health/ready")) == {"status": "ready"}
        tasks.start_soon(app.runner.drain, 1.0)
        await anyio.sleep(0.5)
        not_ready = await get(app, "/health/ready", status=503)
        assert not_ready["error"]["message"] == "not ready: the server is shutting down"
        assert await get(app, "/health/live") == {"status": "alive"}
        refused = await generate(app).run()
        assert (refused.status, refused.headers_received["retry-after"]) == (503, "1")
        assert exchange.status == 200

    assert exchange.events[-1].json()["error"]["reason"] == "drain"
    assert exchange.completed
