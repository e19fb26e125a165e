"""`streamkit doctor`: what it finds behind proxies of our own, and what it says to bad input."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from streamkit.server import cli
from streamkit.testing import FaultProxy, serve_app
from streamkit.testing._http1 import Head
from streamkit.testing.doctor._command import CHECKS, examine, parser, prepare
from streamkit.testing.doctor._hear import Arrival, Heard, pace_of
from streamkit.testing.doctor._remedies import REMEDIES
from streamkit.testing.doctor._report import as_json, as_text
from tests.server.serving import Served, serving
from tests.testing.relay import relaying

realtime = pytest.mark.realtime
QUICK = ("--repeat=1", "--stop-within=0.4", "--late=0.25", "--stream=0.4", "--idle=1.2")
PROXIES = {"nginx", "haproxy", "caddy"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A streamkit whose prompts take 5 ms a word, so that it can be silent."""
    with serving("--heartbeat=0.4", step_ms=5, prefill_tokens_per_step=1) as running:
        yield running


async def doctor(url: str, *arguments: str) -> dict[str, Any]:
    """Examine the server at that URL; the report as JSON."""
    given = parser().parse_args([url, *QUICK, *arguments])
    report = await examine(prepare(given), given.model, given.check)
    assert list(as_text(report))
    return json.loads(json.dumps(as_json(report)))


def only(*checks: str) -> list[str]:
    return [f"--check={name}" for name in checks]


def states(report: dict[str, Any]) -> dict[str, str]:
    return {name: finding["state"] for name, finding in report["findings"].items()}


def wrong(report: dict[str, Any]) -> set[str]:
    return {name for name, state in states(report).items() if state != "ok"}


# -- what it finds -------------------------------------------------------------------------------


@realtime
async def test_where_a_proxy_passes_everything_on_all_is_well(served: Served) -> None:
    async with FaultProxy(served.url) as proxy:
        report = await doctor(proxy.url, f"--backend={served.url}")

    assert wrong(report) == set(), report["findings"]
    assert report["well"]
    assert report["change"] == []
    half_close = report["findings"]["half-close"]
    assert half_close["figures"] == {"taken_for_a_leave": True, "looks_whole": False}
    assert len(report["findings"]["heartbeats"]["figures"]["heartbeats"]) >= 2


@realtime
async def test_a_proxy_that_holds_a_stream_back_is_found_with_its_heartbeats(
    served: Served,
) -> None:
    async with relaying(served.url, holds=True) as url:
        report = await doctor(url, *only("buffering", "compression", "heartbeats", "silence"))

    assert wrong(report) == {"buffering", "heartbeats"}, report["findings"]
    figures = report["findings"]["buffering"]["figures"]
    assert figures["bursts"] == 1
    assert figures["held"] > 0.1
    assert {change["proxy"] for change in report["change"]} == PROXIES, "nobody knows which it is"


@realtime
async def test_a_proxy_that_keeps_requests_whose_client_left_is_found(served: Served) -> None:
    async with relaying(served.url, deaf=True) as url:
        checks = only("buffering", "leave: one answer", "half-close")
        report = await doctor(url, f"--backend={served.url}", *checks)

    found = report["findings"]
    assert wrong(report) == {"leave: one answer"}, found
    assert found["leave: one answer"]["state"] == "fault"
    assert found["leave: one answer"]["remedy"] == "leave"
    assert found["half-close"]["figures"]["taken_for_a_leave"] is False


@realtime
async def test_a_part_that_ends_as_if_it_were_whole_after_a_half_close_is_told(
    served: Served,
) -> None:
    async with relaying(served.url, finishes=True) as url:
        report = await doctor(url, *only("half-close"))

    found = report["findings"]["half-close"]
    assert found["figures"] == {"taken_for_a_leave": True, "looks_whole": True}
    assert found["evidence"].endswith("what it has by then ends as if that were all")


@realtime
async def test_a_leave_that_comes_late_is_a_warning_and_says_how_late(served: Served) -> None:
    async with FaultProxy(served.url, "slow_close:delay=350,stream=upstream") as proxy:
        late = await doctor(proxy.url, "--stop-within=2", *only("leave: one answer"))
        too_late = await doctor(proxy.url, "--stop-within=0.2", *only("leave: one answer"))

    finding = late["findings"]["leave: one answer"]
    assert finding["state"] == "warning", finding
    assert 0.3 <= finding["figures"]["fin"][0]["after"] < 1.5
    assert states(too_late) == {"leave: one answer": "fault"}


@realtime
async def test_the_end_of_a_silence_is_found_and_that_heartbeats_prevent_it(
    served: Served,
) -> None:
    async with relaying(served.url, idle=0.8) as url:
        report = await doctor(url, *only("silence", "heartbeats"))

    silence = report["findings"]["silence"]
    assert silence["state"] == "fault"
    assert "status 504" in silence["evidence"]
    assert 0.7 < silence["figures"]["seconds"] < 1.2
    assert states(report)["heartbeats"] == "ok"


@realtime
async def test_a_request_whose_id_was_changed_is_found_and_still_followed(served: Served) -> None:
    async with relaying(served.url, renames=True) as url:
        report = await doctor(url, *only("request", "leave: streaming"))

    assert wrong(report) == {"request"}, report["findings"]
    assert report["findings"]["request"]["remedy"] == "request id"


@realtime
async def test_what_the_server_does_by_itself_is_not_blamed_on_the_proxy(served: Served) -> None:
    async with relaying(served.url, deaf=True, holds=True) as server:
        checks = only("buffering", "leave: one answer")
        report = await doctor(server, f"--backend={server}", *checks)

    assert wrong(report) == {"buffering", "leave: one answer"}, report["findings"]
    assert report["change"] == []
    assert "the server itself" in report["findings"]["buffering"]["evidence"]
    assert "the server" in report["findings"]["leave: one answer"]["evidence"]


# -- other servers -------------------------------------------------------------------------------

TEMPLATE = {
    "path": "/chat",
    "json": {"q": "{prompt}", "limit": "{max_tokens}", "stream": True},
    "text": "",
}
COUNTERS = {"counters": {"path": "/stats", "running": ["active"]}}


class Other:
    """A server with counters of its own, which heeds its clients' leaving or does not."""

    def __init__(self, *, heeds: bool, slots: int) -> None:
        self.active = 0
        self._heeds = heeds
        self._room = anyio.Semaphore(slots)
        routes = [Route("/chat", self._chat, methods=["POST"]), Route("/stats", self._stats)]
        self.app = Starlette(routes=routes)
        self.tasks = anyio.create_task_group()

    async def _work(self, tokens: int) -> AsyncIterator[str]:
        self.active += 1
        try:
            async with self._room:
                for token in range(tokens):
                    await anyio.sleep(0.005)
                    yield f"data: {token}\n\n"
        finally:
            self.active -= 1

    async def _run_on(self, tokens: int) -> AsyncIterator[str]:
        made: list[str] = []
        news = [anyio.Event()]

        async def pump() -> None:
            async for each in self._work(tokens):
                made.append(each)
                news.pop().set()
                news.append(anyio.Event())

        self.tasks.start_soon(pump)
        for number in range(tokens):
            if len(made) <= number:
                await news[0].wait()
            yield made[number]

    async def _chat(self, request: Request) -> Response:
        asked = await request.json()
        tokens = (self._work if self._heeds else self._run_on)(asked["limit"])
        if asked["stream"]:
            return StreamingResponse(tokens, media_type="text/event-stream")
        return JSONResponse({"text": "".join([each async for each in tokens])})

    async def _stats(self, _: Request) -> Response:
        return JSONResponse({"active": self.active})


@asynccontextmanager
async def other_server(*, heeds: bool, slots: int = 100) -> AsyncIterator[str]:
    other = Other(heeds=heeds, slots=slots)
    async with other.tasks:
        async with serve_app(other.app) as url:
            yield url
        other.tasks.cancel_scope.cancel()


@realtime
async def test_any_server_with_counters_is_examined_by_a_request_template(tmp_path: Path) -> None:
    """Plain Starlette: a stream hears of a leave, a handler that answers in one piece does not."""
    template = tmp_path / "template.json"
    template.write_text(json.dumps(TEMPLATE | COUNTERS))
    async with other_server(heeds=True) as url:
        checks = only("leave: streaming", "leave: no byte yet", "leave: one answer")
        report = await doctor(url, f"--request-template={template}", *checks)

    assert report["witness"] == "the server's counters"
    assert states(report)["leave: streaming"] == "ok", report["findings"]
    assert states(report)["leave: one answer"] == "fault"
    assert states(report)["leave: no byte yet"] == "unknown"


@realtime
@pytest.mark.parametrize(("heeds", "state"), [(True, "ok"), (False, "fault")])
async def test_a_server_that_tells_nothing_is_judged_by_a_short_request(
    tmp_path: Path, heeds: bool, state: str
) -> None:
    template = tmp_path / "template.json"
    template.write_text(json.dumps(TEMPLATE))
    async with other_server(heeds=heeds, slots=1) as url:
        checks = only("leave: streaming", "leave: one answer")
        report = await doctor(url, f"--request-template={template}", *checks)

    assert report["findings"]["leave: streaming"]["state"] == state, report["findings"]
    assert states(report)["leave: one answer"] == "unknown"
    assert not report["well"]


@realtime
async def test_a_stream_that_is_too_fast_says_how_to_ask_for_more(served: Served) -> None:
    report = await doctor(served.url, "--max-tokens=16", *only("buffering"))

    buffering = report["findings"]["buffering"]
    assert buffering["state"] == "unknown"
    assert "--max-tokens" in buffering["evidence"]
    assert not report["well"], "what cannot be seen is not good"


# -- what it says to bad input -------------------------------------------------------------------


APP = Starlette(
    routes=[
        Route("/plain", lambda _: JSONResponse({"text": "whole"}), methods=["POST"]),
        Route("/locked", lambda _: Response(status_code=401), methods=["POST"]),
        Route("/down", lambda _: Response(status_code=502), methods=["POST"]),
        Route("/moved", lambda _: RedirectResponse("/new"), methods=["POST"]),
        Route("/get", lambda _: Response()),
    ]
)


@realtime
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/plain", "does not stream: no server-sent event came (content-type: application/json)"),
        ("/locked", "answered 401: send its key along"),
        ("/down", "answered 502: the proxy does not reach what is behind it"),
        ("/moved", "answered 307: it points to /new"),
        ("/nowhere", "answered 404: give the path of the route that streams"),
        ("/get", "answered 405: the route does not take this method"),
    ],
)
async def test_what_is_no_streaming_endpoint_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], path: str, says: str
) -> None:
    async with serve_app(APP) as url:
        status = await anyio.to_thread.run_sync(cli.main, ["doctor", url + path])

    assert status == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@realtime
async def test_one_piece_where_a_template_promises_text_is_no_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "template.json"
    template.write_text(json.dumps({"path": "/plain", "json": {"prompt": "{prompt}"}}))
    async with serve_app(APP) as url:
        arguments = ["doctor", url, f"--request-template={template}"]
        status = await anyio.to_thread.run_sync(cli.main, arguments)

    assert status == 1
    assert "does not stream: it sent one piece of application/json, 16 bytes" in (
        capsys.readouterr().err
    )


@realtime
async def test_trouble_below_http_is_one_line_and_says_what_helps(
    capsys: pytest.CaptureFixture[str], certificate: tuple[Path, Path]
) -> None:
    async def fails(url: str) -> str:
        assert await anyio.to_thread.run_sync(cli.main, ["doctor", url]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        return error

    assert "does not answer: the connection was refused; is it running" in await fails(
        "http://127.0.0.1:9"
    )
    async with serve_app(APP) as url:
        assert "does it speak TLS at that port?" in await fails(url.replace("http:", "https:"))
    async with serve_app(APP, certificate=certificate) as url:
        assert "--insecure believes any certificate" in await fails(url)
        assert "does not answer" in await fails(url.replace("https:", "http:"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://example.com"], "example.com is not this machine"),
        (["http://127.0.0.1", "--backend=http://192.0.2.1"], "say --i-own-this-server"),
        (["127.0.0.1:80"], "is not http://HOST:PORT"),
        (["http://127.0.0.1", "--request-template=/nowhere"], "cannot read /nowhere"),
        (["http://127.0.0.1:99999"], "'http://127.0.0.1:99999' is not http://HOST:PORT"),
        (["http://127.0.0.1", "--backend=http://127.0.0.1:x"], "is not http://HOST:PORT"),
    ],
)
def test_a_command_line_that_will_not_be_followed_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert cli.main(["doctor", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "argument", ["--idle=-1", "--max-tokens=3", "--repeat=0", "--check=all", "--bye"]
)
def test_a_mistake_in_an_option_is_status_2(argument: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "http://127.0.0.1", argument])

    assert ended.value.code == 2


@realtime
async def test_the_exit_status_and_the_file_say_what_the_table_says(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    arguments = ["doctor", served.url, *QUICK, *only("buffering"), f"--json={file}"]
    status = await anyio.to_thread.run_sync(cli.main, arguments)

    report = json.loads(file.read_text())
    out = capsys.readouterr().out
    assert (status, report["well"]) == (0, True), report
    assert "all well" in out
    assert all(name in out for name in report["findings"])


# -- its parts -----------------------------------------------------------------------------------


def heard(*arrivals: tuple[float, int]) -> Heard:
    """An answer of events, some at a time, at these instants after its request."""
    made = Heard(began_at=0.0, sent_at=0.0, head=Head(status=200, headers={}), complete=True)
    made.arrivals = [Arrival(at, 10 * events, events, 0) for at, events in arrivals]
    made.ended_at = arrivals[-1][0]
    return made


def test_what_comes_one_by_one_waited_for_nobody_however_late_it_began() -> None:
    pace = pace_of(heard(*[(5 + each / 10, 1) for each in range(20)]), 20)

    assert pace.held == 0
    assert (pace.bursts, pace.tokens) == (20, 20)


def test_what_comes_all_at_once_waited_for_half_of_the_time_on_average() -> None:
    pace = pace_of(heard((2.0, 20)), 20)

    assert pace.held == pytest.approx(2.0 * 19 / 20 / 2)
    assert pace.longest == 2.0


def test_what_comes_in_bursts_waited_for_half_of_a_burst() -> None:
    pace = pace_of(heard(*[((each + 1) * 0.2, 10) for each in range(5)]), 50)

    assert pace.held == pytest.approx(0.2 * 9 / 10 / 2)
    assert pace.largest == 100


def test_a_first_burst_after_a_long_thought_is_not_counted_as_held() -> None:
    pace = pace_of(heard((10.0, 2), *[(10 + each / 10, 1) for each in range(1, 19)]), 20)

    assert pace.held < 0.01


def test_reads_that_are_closer_than_two_milliseconds_are_one_burst() -> None:
    pace = pace_of(heard((1.0, 1), (1.001, 1), (2.0, 1)), 3)

    assert pace.bursts == 2


def test_the_page_names_every_option_and_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "doctor.md").read_text()
    options = {each for each in parser().format_help().split() if each.startswith("--")}

    missing = [each for each in options if each.rstrip(",") not in page]
    assert missing in ([], ["--help"])
    assert all(f"| `{name}` |" in page for name in CHECKS)


def test_every_remedy_names_lines_for_each_proxy() -> None:
    assert all(set(remedy) == PROXIES for remedy in REMEDIES.values())
    assert all(lines for remedy in REMEDIES.values() for lines in remedy.values())
