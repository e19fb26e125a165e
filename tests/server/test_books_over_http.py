"""What the server says over HTTP of its requests, its engine and its books, and that it is true."""

import json
import random
from collections.abc import Callable

import anyio
import pytest

from streamkit.engines import FakeEngine
from streamkit.testing import Exchange

STEP = 0.02
Make = Callable[..., Exchange]


async def test_what_is_in_flight_can_be_watched(make_app, generate: Make, get) -> None:
    app = make_app({"slots": 1})

    async with (
        generate(app, headers={"x-request-id": "a"}, max_tokens=10, stream=True),
        generate(app, headers={"x-request-id": "b"}, max_tokens=1),
    ):
        await anyio.sleep(5.5 * STEP)
        listed = (await get(app, "/v1/requests"))["requests"]

    assert [(each["id"], each["phase"]) for each in listed] == [("a", "decode"), ("b", "queued")]
    assert (listed[0]["tokens"], listed[0]["delivered"], listed[0]["prompt_tokens"]) == (5, 5, 3)
    assert listed[0]["age"] == pytest.approx(5.5 * STEP)
    assert (listed[0]["reason"], listed[0]["proof"]) == (None, None)


async def test_what_ended_can_be_looked_up(make_app, generate: Make, get) -> None:
    app = make_app()
    for name in "abc":
        await generate(app, headers={"x-request-id": name}, max_tokens=2).run()

    listed = (await get(app, "/v1/requests?limit=2"))["requests"]

    assert [each["id"] for each in listed] == ["c", "b"]
    account = await get(app, "/v1/requests/a")
    assert (account["phase"], account["tokens"], account["delivered"]) == ("finished", 2, 2)
    assert sum(account["seconds"].values()) == pytest.approx(account["age"])


async def test_the_engine_shows_its_own_books(make_app, generate: Make, get) -> None:
    app = make_app({"slots": 1})

    async with generate(app, max_tokens=10), generate(app, max_tokens=10):
        await anyio.sleep(3.5 * STEP)
        books = await get(app, "/v1/engine")

    capabilities = books.pop("capabilities")
    assert books == {
        "name": "fake",
        "slots": 1,
        "running": 1,
        "queued": 1,
        "steps": 3,
        "tokens": 3,
        "quarantined": 0,
        "misbehaviours": {},
        "failure": None,
    }
    assert capabilities["proof"] == "observed"


class Opaque(FakeEngine):
    """It tells nothing of its books, as an engine behind somebody else's HTTP."""

    def statistics(self) -> None:
        return None


async def test_what_an_engine_cannot_tell_is_null_and_no_metric(
    make_app, generate: Make, get
) -> None:
    app = make_app(Opaque())

    assert (await generate(app, max_tokens=3).run()).status == 200

    books = await get(app, "/v1/engine")
    assert (books["slots"], books["tokens"], books["name"]) == (None, None, "fake")
    exposed = (await Exchange(app, method="GET", path="/metrics").run()).text
    assert "streamkit_tokens_produced_total 3.0\n" in exposed
    assert not [line for line in exposed.splitlines() if line.startswith("streamkit_engine_")]


async def test_metrics_grow_with_the_tokens_and_not_with_the_requests(
    make_app, generate: Make, metrics
) -> None:
    app = make_app()

    async with generate(app, max_tokens=10, stream=True):
        await anyio.sleep(4.5 * STEP)
        assert await metrics(app, "streamkit_tokens_produced_total") == 4
        assert await metrics(app, "streamkit_tokens_delivered_total") == 4
        assert await metrics(app, "streamkit_requests_in_flight", phase="decode") == 1

    assert await metrics(app, "streamkit_tokens_produced_total") == 10
    assert await metrics(app, "streamkit_requests_in_flight") == 0
    assert await metrics(app, "streamkit_requests_ended_total", outcome="finished") == 1
    assert await metrics(app, "streamkit_first_token_seconds_count") == 1


async def test_metrics_say_499_for_a_client_that_left(make_app, generate: Make, metrics) -> None:
    app = make_app()

    await generate(app, max_tokens=100, leaves_after_seconds=3.5 * STEP).run()
    await generate(app, max_tokens=100, stream=True, leaves_after_chunks=2).run()
    await generate(app, max_tokens=1).run()
    await app.runner.in_flight.wait_idle()

    def count(status: str):
        name = "streamkit_http_requests_total"
        return metrics(app, name, route="/generate", status=status)

    assert (await count("499"), await count("200")) == (2, 1)
    cut = {"outcome": "cancelled", "reason": "client_disconnect", "phase": "decode"}
    assert await metrics(app, "streamkit_requests_ended_total", **cut) == 2
    assert await metrics(app, "streamkit_cancel_told_seconds_count", phase="decode") == 2
    assert await metrics(app, "streamkit_cancel_proved_seconds_count", phase="decode") == 2
    assert await metrics(app, "streamkit_tokens_saved_total", phase="decode") > 190


async def test_readiness_and_refusals_are_counted(make_app, generate: Make, metrics) -> None:
    app = make_app({"slots": 1}, max_queued=0)
    assert await metrics(app, "streamkit_ready") == 1

    async with generate(app, max_tokens=10):
        await anyio.sleep(STEP)
        await generate(app).run()
    await Exchange(app, path="/generate", body=b"nonsense").run()
    await app.runner.drain(0)
    await generate(app).run()

    for why in ("full", "invalid", "unavailable"):
        assert await metrics(app, "streamkit_requests_refused_total", why=why) == 1
    assert await metrics(app, "streamkit_ready") == 0
    assert await metrics(app, "streamkit_requests_received_total") == 4


def leaving(dice: random.Random) -> dict[str, object]:
    return dice.choice(
        [
            {},
            {"leaves_after_seconds": dice.random() * 2},
            {"leaves_after_chunks": dice.randint(0, 20)},
            {"stops_reading_after_chunks": dice.randint(0, 5)},
        ]
    )


async def crowd(app, generate: Make, *, clients: int, seed: int) -> None:
    dice = random.Random(seed)
    async with anyio.create_task_group() as tasks:
        for number in range(clients):
            exchange = generate(
                app,
                headers={"x-request-id": f"r{number}"},
                prompt="w " * dice.choice([1, 50, 3000]),
                max_tokens=dice.randint(1, 100),
                events=dice.random() < 0.5,
                **leaving(dice),
                **dice.choice([{"stream": True}, {"stream": False, "n": dice.randint(1, 3)}]),
            )
            tasks.start_soon(exchange.run)
            if dice.random() < 0.15:
                tasks.start_soon(Exchange(app, path=f"/v1/requests/r{number}/cancel").run)
            await anyio.sleep(dice.random() * STEP)
    await app.runner.in_flight.wait_idle()


@pytest.mark.parametrize("seed", range(3))
async def test_the_books_of_a_crowd_agree_with_the_engines_own_to_the_token(
    make_app, generate: Make, get, metrics, seed: int
) -> None:
    app = make_app({"speculative": 2}, write_stall=2.0, request_timeout=20.0)

    await crowd(app, generate, clients=200, seed=seed)

    engine = await get(app, "/v1/engine")
    assert (engine["running"], engine["queued"], engine["quarantined"]) == (0, 0, 0)
    produced = await metrics(app, "streamkit_tokens_produced_total")
    delivered = await metrics(app, "streamkit_tokens_delivered_total")
    undelivered = await metrics(app, "streamkit_tokens_undelivered_total")
    assert produced == engine["tokens"] == delivered + undelivered
    assert await metrics(app, "streamkit_engine_tokens_total") == engine["tokens"]
    assert await metrics(app, "streamkit_requests_received_total") == 200
    assert await metrics(app, "streamkit_requests_ended_total") == 200
    assert await metrics(app, "streamkit_ledger_violations_total") == 0
    for account in (await get(app, "/v1/requests?limit=1000"))["requests"]:
        record = app.runner.engine.log.request(account["id"])
        assert account["tokens"] == (record.tokens if record else 0)
        assert account["wasted"] == (record.tokens_after_cancel if record else 0)
        assert record is None or record.aborts <= 1
    reasons = {each["reason"] for each in (await get(app, "/v1/requests?limit=1000"))["requests"]}
    assert reasons >= {None, "client_disconnect", "write_stalled", "requested"}


LIES = {
    "ignore_abort": "ignored",
    "lose_abort:2": "lost",
    "ack_and_run_on": "runs_on",
    "answer_late:1.5": "late",
    "never_answer": "silent",
}


@pytest.mark.parametrize("kill", [False, True], ids=["without force", "with force"])
@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_named_counted_and_contained(
    make_app, generate: Make, get, metrics, lie: str, kill: bool
) -> None:
    name = LIES[lie]
    app = make_app({"slots": 2, "lie": lie, "kill": kill})

    await generate(
        app,
        headers={"x-request-id": "cut"},
        max_tokens=400,
        stream=True,
        leaves_after_seconds=2.5 * STEP,
    ).run()
    await app.runner.in_flight.wait_idle()

    assert (await get(app, "/v1/requests/cut"))["misbehaviour"] == name
    assert await metrics(app, "streamkit_engine_misbehaviours_total", kind=name) == 1
    # Contained: somebody else is served at once, on the slot that is left.
    began = anyio.current_time()
    assert (await generate(app, max_tokens=1).run()).status == 200
    # What waits in the late one's inbox is late for everybody.
    assert anyio.current_time() - began <= (1.5 if name == "late" else 2 * STEP)
    quarantined = await metrics(app, "streamkit_engine_quarantined_slots")
    assert quarantined == (await get(app, "/v1/engine"))["quarantined"]
    assert quarantined == await metrics(app, "streamkit_requests_quarantined")

    await anyio.sleep(20)  # whatever it was, it has ended by now
    assert await metrics(app, "streamkit_engine_quarantined_slots") == 0
    assert (await get(app, "/v1/requests/cut"))["phase"] == "cancelled"
    assert (
        await metrics(app, "streamkit_tokens_produced_total")
        == ((await get(app, "/v1/engine"))["tokens"])
    )
    assert await metrics(app, "streamkit_ledger_violations_total") == 0


async def test_a_crash_between_cancel_and_proof_is_named_and_counted(
    make_app, generate: Make, get, metrics
) -> None:
    app = make_app({"lie": "crash"})

    await generate(
        app, headers={"x-request-id": "cut"}, max_tokens=400, leaves_after_seconds=2.5 * STEP
    ).run()
    await app.runner.in_flight.wait_idle()

    account = await get(app, "/v1/requests/cut")
    assert (account["misbehaviour"], account["reason"]) == ("crashed", "client_disconnect")
    assert await metrics(app, "streamkit_engine_misbehaviours_total", kind="crashed") == 1
    assert await metrics(app, "streamkit_ready") == 0
    assert (await get(app, "/v1/engine"))["failure"] is not None
    assert (await generate(app).run()).status == 503


@pytest.mark.blocks_the_loop
@pytest.mark.realtime
async def test_a_blocked_loop_is_named_and_its_seconds_are_counted(
    make_app, generate: Make, get, metrics
) -> None:
    app = make_app({"lie": "block:1.2", "step_ms": 5})

    async with generate(app, max_tokens=100):
        await generate(
            app, headers={"x-request-id": "cut"}, max_tokens=400, leaves_after_seconds=0.05
        ).run()
    await app.runner.in_flight.wait_idle()

    assert (await get(app, "/v1/requests/cut"))["misbehaviour"] == "blocked"
    assert await metrics(app, "streamkit_engine_misbehaviours_total", kind="blocked") == 1
    assert await metrics(app, "streamkit_loop_blocked_seconds_total") > 0.5


async def test_all_quarantined_is_not_ready(make_app, generate: Make, get, metrics) -> None:
    app = make_app({"slots": 1, "lie": "ignore_abort"})

    await generate(app, max_tokens=400, leaves_after_seconds=2.5 * STEP).run()
    await app.runner.in_flight.wait_idle()

    error = (await get(app, "/health/ready", status=503))["error"]
    assert error["message"] == "not ready: all slots of engine fake are quarantined"
    refused = await generate(app).run()
    assert (refused.status, json.loads(refused.data)["error"]["code"]) == (503, "not_ready")
    await anyio.sleep(20)
    assert await get(app, "/health/ready") == {"status": "ready"}
