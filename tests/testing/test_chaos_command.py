"""`streamkit chaos`: what it finds, that it finds it again, and what it refuses to do."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streamkit.server import cli
from streamkit.testing import Fault, serve_app
from streamkit.testing.chaos._plan import make_plan
from streamkit.testing.chaos._profiles import PROFILES
from streamkit.testing.chaos._target import Count, Target
from streamkit.testing.chaos._watch import rest
from tests.server.serving import Served, run, serving

realtime = pytest.mark.realtime
QUICK = ("--clients", "8", "--concurrency", "4", "--stop-within", "1", "--stay", "0.3")
FAULTS = ("--fault=fin@first_byte", "--fault=rst@event:3", "--fault=half_close@event:2")


def chaos(url: str, folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command; its exit status and its report."""
    file = folder / "report.json"
    status = cli.main(["chaos", url, *QUICK, f"--json={file}", *arguments])
    return status, json.loads(file.read_text())


# -- what it finds -------------------------------------------------------------------------------


Said = tuple[int, str, dict[str, Any], dict[str, str]]


@dataclass
class Honest:
    """A run against an honest engine, which is well."""

    server: Served
    said: Said
    page: str
    addresses: set[object]


def said_by(status: int, report: dict[str, Any]) -> Said:
    """What the same seed is to say again."""
    words = {name: check["word"] for name, check in report["checks"].items()}
    return status, report["verdict"], report["plan"], words


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Honest]:
    folder = tmp_path_factory.mktemp("honest")
    addresses: set[object] = set()
    connect = asyncio.SelectorEventLoop.sock_connect

    async def noted(loop: Any, sock: Any, address: Any) -> None:
        addresses.add(address)
        await connect(loop, sock, address)

    with serving(step_ms=5) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.SelectorEventLoop, "sock_connect", noted)
        page = folder / "report.html"
        ran = chaos(server.url, folder, *FAULTS, "--seed=5", f"--html={page}")
        patch.undo()
        yield Honest(server, said_by(*ran), page.read_text(), addresses)


@realtime
@pytest.mark.timeout(90)
def test_streamkit_over_the_honest_engine_passes_and_the_same_seed_says_so_again(
    honest: Honest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = chaos(honest.server.url, tmp_path, *FAULTS, "--seed=5")

    assert said_by(status, report) == honest.said
    assert (status, report["verdict"]) == (0, "good")
    assert {check["word"] for check in report["checks"].values()} == {"good"}
    assert [cell["state"] for cell in report["cells"]] == ["stopped"] * 3
    assert report["crowd"]["came"] == 8
    assert "verdict: good" in capsys.readouterr().out


RAN_ON = "rst@event:3 did not stop within 0.5 s"


@realtime
@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("lie", "check", "says"),
    [
        ("ignore_abort", "stops", RAN_ON),
        ("ack_and_run_on", "stops", RAN_ON),
        ("answer_late:0.9", "stops", RAN_ON),
        ("crash", "keeps its word", "by its own count: crashed 1"),
    ],
)
def test_an_engine_that_lies_about_its_aborts_is_found_and_the_verdict_names_the_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lie: str, check: str, says: str
) -> None:
    options = ("--fault=rst@event:3", "--seed=3", "--stop-within=0.5", "--clients=2")
    with serving(step_ms=5, lie=lie) as served:
        status, report = chaos(served.url, tmp_path, *options)

    assert (status, report["verdict"]) == (1, "bad")
    assert report["checks"][check]["word"] == "bad"
    assert report["checks"][check]["detail"].startswith(says)
    out = capsys.readouterr().out
    assert re.search(rf"{check} +BAD +{re.escape(says)}", out)
    assert re.search(r"again: +streamkit chaos http://\S+ .*--fault=rst@event:3 --seed=3", out)
    if says == RAN_ON:
        assert report["cells"][0]["tokens"] > 50, "what it made for nobody is counted"


@realtime
@pytest.mark.timeout(60)
def test_a_run_that_fails_prints_the_command_that_fails_again_in_the_same_way(
    tmp_path: Path,
) -> None:
    """Twice, over the real command line; the first was given no seed."""
    file = tmp_path / "report.json"
    seen: list[tuple[Said, str]] = []
    with serving(step_ms=5, lie="never_answer") as served:
        line = ["chaos", served.url, *QUICK, "--clients=2", "--fault=rst@event:3", f"--json={file}"]
        for _ in range(2):
            done = run(*line)
            again = re.search(r"^again: +streamkit (chaos .* --seed 0)$", done.stdout, re.MULTILINE)
            assert again, done
            line = shlex.split(again[1])
            seen.append((said_by(done.returncode, json.loads(file.read_text())), again[1]))

    assert seen[0] == seen[1], "nor does the command that it prints change"
    assert seen[0][0][:2] == (1, "bad")
    assert re.search(r"keeps its word +BAD +by its own count: silent \d", done.stdout)


@realtime
@pytest.mark.timeout(60)
def test_the_pictures_are_in_the_file_and_it_loads_nothing(honest: Honest) -> None:
    text = honest.page

    pictures = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(pictures) == 5
    names = [label.text for picture in pictures for label in picture.iter("text")]
    assert {"rst@event:3", "stay@after_end"} <= set(names)
    assert not re.search(r"(src|href)=|@import|url\(", text)


@realtime
@pytest.mark.timeout(60)
def test_nothing_but_the_named_server_is_contacted(honest: Honest) -> None:
    assert honest.addresses == {("127.0.0.1", int(honest.server.url.rpartition(":")[2]))}


@realtime
@pytest.mark.timeout(60)
def test_a_server_without_counters_is_judged_by_a_short_request(tmp_path: Path) -> None:
    """One slot: whoever ran on would keep the short request waiting."""
    with serving("--max-queued", "100", step_ms=5, slots=1) as served:
        status, report = chaos(served.url, tmp_path, "--target-profile=openai", *FAULTS)

    assert status == 0, report["checks"]
    assert [cell["state"] for cell in report["cells"]] == ["unseen"] * 3
    assert "a short request felt 4 others" in report["checks"]["stops"]["detail"]


@realtime
@pytest.mark.timeout(60)
def test_where_nothing_can_be_seen_the_verdict_is_not_good(tmp_path: Path) -> None:
    with serving(step_ms=5, slots=64) as served:
        status, report = chaos(served.url, tmp_path, "--target-profile=openai", *FAULTS)

    assert (status, report["verdict"]) == (1, "bad")
    assert report["checks"]["stops"]["word"] == "unknown"


# -- what it refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://example.com"], "example.com is not this machine"),
        (["http://192.0.2.1:80"], "say --i-own-this-server"),
        (["ftp://127.0.0.1"], "'ftp://127.0.0.1' is not http://HOST:PORT"),
        (["127.0.0.1:80"], "is not http://HOST:PORT"),
        (["prox", "127.0.0.1:0", "127.0.0.1:80"], "did you mean `streamkit chaos proxy`?"),
        (["http://127.0.0.1:99999"], "'http://127.0.0.1:99999' is not http://HOST:PORT"),
        (["http://127.0.0.1", "--fault=h2_reset"], "h2_reset@event:3 needs --http2"),
        (["http://127.0.0.1", "--fault=tls_cut"], "tls_cut@event:3 needs an https URL"),
        (["https://127.0.0.1", "--http2"], "--http2 is without TLS here"),
        (["http://127.0.0.1", "--header=x"], "--header takes NAME:VALUE, got 'x'"),
        (["http://127.0.0.1", "--request-template=/nowhere"], "cannot read /nowhere"),
    ],
)
def test_a_command_line_that_will_not_be_followed_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert cli.main(["chaos", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fault=bye"], "way 'bye' is not one of"),
        (["--clients=none"], "expected a number from 1 to 10000, got 'none'"),
        (["--stop-within=-1"], "expected seconds above 0, got '-1'"),
        (["--target-profile=tgi"], "invalid choice: 'tgi'"),
    ],
)
def test_a_mistake_in_an_option_names_what_would_be_right(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["chaos", "http://127.0.0.1", *arguments])

    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("[]", "expected a JSON object with path, json,"),
        ('{"pth": "/"}', "'pth' is not one of path, json,"),
        ('{"counters": {"path": "/x"}}', "counters: running missing"),
        ("{", "cannot read"),
    ],
)
def test_a_template_that_cannot_be_used_says_what_is_wrong_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], template: str, says: str
) -> None:
    file = tmp_path / "template.json"
    file.write_text(template)

    assert cli.main(["chaos", "http://127.0.0.1", f"--request-template={file}"]) == 2
    assert says in capsys.readouterr().err


@realtime
def test_a_server_that_is_not_there_or_another_one_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["chaos", "http://127.0.0.1:9"]) == 1
    refused = (
        "http://127.0.0.1:9/v1/engine does not answer: the connection was refused; is it running"
    )
    assert refused in capsys.readouterr().err
    with serving() as served:
        assert cli.main(["chaos", served.url, "--target-profile=vllm"]) == 1
    assert "is this the right --target-profile?" in capsys.readouterr().err


# -- its parts -------------------------------------------------------------------------------------


def test_half_of_a_crowd_stays_and_the_seed_decides_who() -> None:
    plans = [make_plan(seed, 40, 8, faults=(), over=()) for seed in (1, 1, 2)]

    assert plans[0] == plans[1] != plans[2]
    assert all(sum(client.stays for client in plan.clients) == 20 for plan in plans)


def test_only_faults_that_were_named_come_in_the_crowd() -> None:
    named = (Fault.parse("rst@event:1"), Fault.parse("fin@queued"))
    plan = make_plan(0, 40, 8, faults=named, over=())

    assert plan.cells == named
    assert {client.fault for client in plan.clients if not client.stays} == set(named)


VLLM_PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 120.0
vllm:generation_tokens_total{engine="1",model_name="m"} 30.0
"""


@realtime
async def test_the_counters_of_all_engines_of_a_server_are_added_up() -> None:
    async def metrics(_: Request) -> Response:
        return PlainTextResponse(VLLM_PAGE)

    app = Starlette(routes=[Route("/metrics", metrics)])
    async with serve_app(app) as url:
        target = Target(url, PROFILES["vllm"], seed=0, timeout=5, headers={}, tls=None)
        count = await target.count()

    assert (count.running, count.tokens) == (7, 150)


def looks(*running: float, every: float = 1.0) -> Sequence[Count]:
    return [
        Count(asked_at=at * every, at=at * every + 0.1, running=each, tokens=10.0 * at)
        for at, each in enumerate(running)
    ]


def test_a_server_rests_from_the_first_look_on_that_finds_nothing_more() -> None:
    stop = rest(looks(0, 1, 1, 0, 0), base=0, since=1.5)

    assert stop is not None
    assert stop.after == pytest.approx(1.6)
    assert stop.tokens == 20


def test_a_server_that_starts_again_has_not_come_to_rest() -> None:
    assert rest(looks(0, 1, 0, 1), base=0, since=1.5) is None
    assert rest(looks(0, 1, 0, 1, 0), base=0, since=1.5).after == pytest.approx(2.6)


def test_a_look_that_was_asked_for_before_proves_nothing() -> None:
    assert rest(looks(0, 0, 0), base=0, since=2.05) is None
