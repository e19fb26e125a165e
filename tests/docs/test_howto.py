"""What the how-to pages say is what happens: their code is run, their numbers are looked at."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import HTTPException

from streamkit._core import wait_held
from streamkit.server import cli
from streamkit.server._metrics import FAMILIES, TIMINGS
from streamkit.server.app import Application
from streamkit.server.settings import Settings, flag_of
from streamkit.testing import CheckPlan, Exchange, check_engine
from tests.server.serving import serving

from .conftest import ServeModel
from .pages import Page

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGES = {path.stem: Page(path) for path in HOWTO.glob("*.md")}
WHOLE = "".join(f"{number} " for number in range(20))


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, folder: Path) -> Page:
    PAGES[request.param].write_files(folder)
    return PAGES[request.param]


def test_each_check_that_a_page_shows_prints_just_that(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, output in page.commands():
        if command.startswith("streamkit check") and output:
            cli.main(command.split()[1:])
            assert capsys.readouterr().out.strip() == output.strip()


def test_each_flag_and_each_metric_of_a_page_exists(page: Page) -> None:
    flags = {flag_of(name) for name in Settings.model_fields}
    metrics = {each.name for each in (*FAMILIES, *TIMINGS)}

    assert set(re.findall(r"`(--[a-z-]+)", page.text)) <= flags
    named = {name.removesuffix("_total") for name in re.findall(r"`(streamkit_\w+)", page.text)}
    assert named <= metrics


def how_it_ended(app: Application) -> tuple[str, str | None, str | None]:
    """The request that ended last, in the words of its books."""
    [account] = app.runner.in_flight.ended(1)
    return account.phase, account.reason, account.proof and account.proof.word


# -- a Truss model -----------------------------------------------------------------------------


async def leave(app: Any, path: str, prompt: str, after: float, **client: Any) -> Any:
    """Leave so many seconds after asking; return the job of the engine, a while later."""
    inputs = {"prompt": prompt, "max_tokens": 20}
    exchange = Exchange(app, path=path, json=inputs, leaves_after_seconds=after, **client)
    try:
        await exchange.run()
    except Exception:  # noqa: BLE001 - what a plain app lets out when its client has left
        assert exchange.server == "standard"
    await anyio.sleep(20)
    return importlib.import_module("engine").jobs[-1]


TOLD = {
    # A model: when its engine is told if the client leaves between two words (after 0.25 s), and
    # before a first word that takes ten (after 1 s).
    "asks": (0.3, None),
    "triton_asks": (0.3, 3.0),
    "vllm_asks": (0.3, 3.0),
    "told": (0.25, 1.0),
    "triton_told": (0.25, 1.0),
    "vllm_told": (0.25, 1.0),
}


@pytest.mark.blocks_the_loop  # a model is looked for before there is a loop, but not in a test
@pytest.mark.parametrize("model", TOLD)
async def test_an_engine_is_told_when_the_page_on_truss_says_so(
    folder: Path, serve_model: ServeModel, model: str
) -> None:
    PAGES["move-a-truss-model"].write_files(folder)
    app = await serve_model(f"{model}.py")
    inputs = {"prompt": "short", "max_tokens": 20}
    between, long = TOLD[model]

    whole = await Exchange(app, path="/v1/models/model:predict", json=inputs).run()
    assert (whole.status, whole.text) == (200, WHOLE)

    for prompt, after, expected in (("short", 0.25, between), ("long", 1.0, long)):
        began = anyio.current_time()
        job = await leave(app, "/predict", prompt, after)
        told = None if job.told_at is None else job.told_at - began
        assert told == (None if expected is None else pytest.approx(expected))
        assert how_it_ended(app) == ("cancelled", "client_disconnect", "joined")


# -- a FastAPI endpoint ------------------------------------------------------------------------


@pytest.fixture
def apps(folder: Path) -> dict[str, Any]:
    PAGES["move-a-fastapi-endpoint"].write_files(folder)
    return {name: importlib.import_module(name).app for name in ("before", "after", "responses")}


@pytest.mark.parametrize("name", ["before", "after"])
async def test_a_client_that_stays_notices_no_move(apps: dict[str, Any], name: str) -> None:
    async def ask(path: str) -> str:
        return (await Exchange(apps[name], path=path, json={"prompt": "short"}).run()).text

    assert await ask("/chat") == WHOLE
    assert await ask("/answer") == f'{{"text":"{WHOLE}"}}'
    assert await ask("/lines") == WHOLE.replace(" ", "\n")


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian", "standard"])
@pytest.mark.parametrize("prompt", ["short", "long"])
async def test_an_engine_is_told_when_the_page_on_fastapi_says_so(
    apps: dict[str, Any], prompt: str, server: str
) -> None:
    async def told(name: str, path: str) -> float | None:
        began = anyio.current_time()
        job = await leave(apps[name], path, prompt, 0.25, server=server)
        return None if job.told_at is None else pytest.approx(job.told_at - began)

    next_word = {"short": 0.3, "long": 10.0}[prompt]
    assert await told("before", "/chat") == (next_word if server == "standard" else None)
    assert await told("before", "/answer") is None
    assert await told("after", "/chat") == 0.25
    assert await told("after", "/answer") == 0.25
    assert await told("responses", "/chat") == 0.25
    assert await told("responses", "/raw") == 0.25


async def test_a_sync_generator_is_told_in_the_same_turn(apps: dict[str, Any]) -> None:
    exchange = Exchange(
        apps["after"], path="/lines", json={"prompt": "short"}, leaves_after_chunks=3
    )
    await exchange.run()
    await wait_held(5)

    assert importlib.import_module("engine").jobs[-1].told_at == exchange.left_at


@pytest.mark.parametrize("path", ["/chat", "/raw"])
async def test_our_responses_keep_the_status_of_an_error_before_the_first_chunk(
    apps: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(prompt: str) -> None:
        raise HTTPException(418, f"not for {prompt}")

    monkeypatch.setattr(importlib.import_module("engine"), "start", refuse)

    exchange = await Exchange(apps["responses"], path=path, json={"prompt": "short"}).run()

    assert exchange.status == 418


async def test_an_event_stream_ends_with_done(apps: dict[str, Any]) -> None:
    exchange = await Exchange(apps["responses"], path="/chat", json={"prompt": "short"}).run()

    assert [event.event for event in exchange.events[-2:]] == ["message", "done"]


async def test_the_test_on_the_page_passes(apps: dict[str, Any]) -> None:
    await importlib.import_module("test_leaving").test_a_client_that_leaves_stops_the_engine()


# -- an engine's adapter -----------------------------------------------------------------------


@pytest.fixture
def adapter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(HOWTO.parents[1] / "tests" / "engines")  # the stand-in engine
    PAGES["write-an-engine-adapter"].write_files(folder)
    return importlib.import_module("adapter")


async def test_the_adapter_of_the_page_passes_the_kit(adapter: Any) -> None:
    await importlib.import_module("test_adapter").test_the_engine_stops()


def test_the_adapter_of_the_page_has_less_than_forty_lines(adapter: Any) -> None:
    assert len(Path(adapter.__file__).read_text().splitlines()) < 40


@pytest.mark.blocks_the_loop  # it reads the page
async def test_a_claim_that_is_not_kept_fails_as_the_page_says(adapter: Any) -> None:
    engine = importlib.import_module("stand_in").WordEngine
    overclaims = replace(adapter.CAN, extra_steps=0)

    def make() -> Any:
        made = adapter.WordAdapter(engine())
        made._capabilities = overclaims
        return made

    report = await check_engine(make, CheckPlan(cancels=4))

    [_, shown] = PAGES["write-an-engine-adapter"].blocks("text")
    [finding] = report.findings
    assert str(finding).startswith(shown.splitlines()[1].strip().removesuffix("…]"))


# -- sync code ---------------------------------------------------------------------------------

SYNC = {
    "asks": ({"steps": 3}, "3"),
    "generates": ({"steps": 3}, "0 1 2 "),
    "own_threads": ({"parts": [2, 3]}, "4"),
    "waits_for_a_thread": ({"steps": 3}, "3"),
    "watches": ({"steps": 3}, "3"),
    "interrupted": ({"steps": 3}, "3"),
    "blocks": ({"seconds": 0}, '"done"'),
}
"""A model of the page: what it is given, and what it answers."""
LONG = {"steps": 10**9, "parts": [10**9] * 2, "seconds": 1.0}


@pytest.mark.realtime  # these hold their threads, and with them a virtual clock
@pytest.mark.parametrize("model", SYNC)
async def test_sync_code_stops_as_the_page_says(
    folder: Path, serve_model: ServeModel, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    page = PAGES["stop-sync-code"]
    page.write_files(folder)
    app = await serve_model(f"{model}.py")
    inputs, answer = SYNC[model]

    whole = await Exchange(app, path="/predict", json=inputs).run()
    assert (whole.status, whole.text) == (200, answer)

    with caplog.at_level(logging.WARNING):
        long = {name: LONG[name] for name in inputs}
        await Exchange(app, path="/predict", json=long, leaves_after_seconds=0.1).run()
        await app.runner.in_flight.wait_idle()

    assert how_it_ended(app) == ("cancelled", "client_disconnect", "joined")
    [warning] = page.blocks("")
    said = [f"{each.levelname} {each.name}: {each.message}" for each in caplog.records]
    blocked = [line for line in said if "keeps its cancel waiting" in line]
    shown = re.escape(warning.strip()).replace("…", ".*")
    assert [bool(re.fullmatch(shown, line)) for line in blocked] == [True] * (model == "blocks")


# -- an OpenAI client --------------------------------------------------------------------------

PRINTED = {
    # A script of the page: what it prints, and how its request ended.
    "whole": (r"0 length \w+( \w+){19}\n1 length \w+( \w+){19}\n40 tokens\n", None),
    "leave": (r"[0-9a-f]{32}\n", "client_disconnect"),
    "cancelled": (r"requested the request was cancelled\n", "requested"),
}


@pytest.mark.realtime
@pytest.mark.parametrize("script", PRINTED)
async def test_an_openai_client_does_what_the_page_says(folder: Path, script: str) -> None:
    page = PAGES["use-an-openai-client"]
    page.write_files(folder)
    printed, reason = PRINTED[script]

    with serving(step_ms=2) as served:
        variables = {"OPENAI_BASE_URL": f"{served.url}/v1", "OPENAI_API_KEY": "unused"}
        command = [sys.executable, f"{script}.py"]
        ran = await anyio.run_process(command, env={**os.environ, **variables})
        [account] = (await anyio.to_thread.run_sync(served.get, "/v1/requests"))["requests"]

    assert re.fullmatch(printed, ran.stdout.decode()), ran
    assert account["reason"] == reason
