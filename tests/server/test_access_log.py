"""One line for each request: who, what, how it ended, and what that cost."""

import json
import logging
from collections.abc import Callable

import anyio
import pytest

from streamkit.testing import Exchange

STEP = 0.02
Make = Callable[..., Exchange]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, logger="streamkit.access")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "streamkit.access"]


def fields(line: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in line.split(" "))


async def test_a_finished_request_has_one_line(make_app, generate: Make, lines) -> None:
    app = make_app()

    await generate(app, headers={"x-request-id": "a"}, max_tokens=5).run()

    [line] = lines()
    assert line == (
        "id=a method=POST path=/generate status=200 phase=finished reason=- prompt_tokens=3 "
        "produced=5 delivered=5 saved=0 queue_s=0.0 first_token_s=0.02 told_s=- proved_s=- "
        "proof=answered total_s=0.1"
    )


async def test_a_client_that_left_has_one_line_with_499_and_no_traceback(
    make_app, generate: Make, lines, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()

    await generate(
        app, headers={"x-request-id": "a"}, stream=True, max_tokens=50, leaves_after_seconds=0.05
    ).run()
    await app.runner.in_flight.wait_idle()

    [line] = lines()
    assert fields(line) == {
        "id": "a",
        "method": "POST",
        "path": "/generate",
        "status": "499",
        "phase": "decode",
        "reason": "client_disconnect",
        "prompt_tokens": "3",
        "produced": "3",
        "delivered": "2",
        "saved": "47",
        "queue_s": "0.0",
        "first_token_s": "0.02",
        "told_s": "0.0",
        "proved_s": "0.01",
        "proof": "observed",
        "total_s": "0.05",
    }
    assert not [record for record in caplog.records if record.exc_info]


async def test_the_line_waits_for_the_proof(make_app, generate: Make, lines) -> None:
    app = make_app({"lie": "answer_late:0.7"})

    exchange = await generate(app, max_tokens=50, leaves_after_seconds=0.05).run()
    assert lines() == []
    await anyio.sleep(1)

    assert exchange.ended_at == pytest.approx(0.05)
    assert [fields(line)["proved_s"] for line in lines()] == ["0.71"]  # and a step


@pytest.mark.parametrize(
    ("exchange", "status", "reason"),
    [
        pytest.param({"path": "/generate", "body": b"{"}, "400", "error", id="bad body"),
        pytest.param({"path": "/nowhere"}, "404", None, id="unknown path"),
        pytest.param({"path": "/health/live", "method": "GET"}, "200", None, id="health"),
    ],
)
async def test_every_request_has_its_line(
    make_app, lines, exchange: dict, status: str, reason: str | None
) -> None:
    await Exchange(make_app(), **exchange).run()

    [line] = lines()
    assert fields(line)["status"] == status
    assert fields(line).get("reason") == reason


async def test_a_refused_request_has_its_line(make_app, generate: Make, lines) -> None:
    app = make_app({"slots": 1}, max_queued=0)

    async with generate(app, max_tokens=50):
        await anyio.sleep(STEP)
        await generate(app).run()

    refused = fields(lines()[0])
    assert (refused["status"], refused["reason"], refused["produced"]) == ("429", "shed", "0")


async def test_nothing_in_a_path_can_forge_a_line(make_app, lines) -> None:
    await Exchange(make_app(), path='/a b="c"\nid=x status=200').run()

    [line] = lines()
    assert "\n" not in line
    assert 'path="/a b=\\"c\\"\\nid=x status=200"' in line


async def test_lines_can_be_json(make_app, generate: Make, lines) -> None:
    app = make_app(access_log="json")

    await generate(app, headers={"x-request-id": "a"}, max_tokens=5).run()

    [line] = lines()
    assert json.loads(line)["id"] == "a"
    assert json.loads(line)["reason"] is None
    assert json.loads(line)["total_s"] == pytest.approx(0.1)


async def test_lines_can_be_switched_off(make_app, generate: Make, lines) -> None:
    app = make_app(access_log="off")

    await generate(app, max_tokens=5).run()

    assert lines() == []
