"""`streamkit demo`: run once for real, and what it says of results that are not in order."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamkit.engines import FakeEngine
from streamkit.server import cli
from streamkit.server.demo._command import conclude
from streamkit.server.demo._drive import Work
from streamkit.server.demo._plain import Manner, Plain
from streamkit.server.demo._plan import FEWEST, MOST, Aim, Leave, Scene, make_plan
from streamkit.server.demo._results import After, Cut, Results, Run, Totals, cut_of, problems
from streamkit.server.demo._servers import CannotStart, Footprint, running
from streamkit.server.demo._traffic import Stay
from streamkit.testing import Exchange

LIMIT = 90  # seconds; it takes some 12 on two idle cores
PHASES = {
    "queued",
    "prefill",
    "decode",
    "decode, not streaming",
    "decode, in a step of 400 ms",
    "sending, stalled reader",
    "sending, reads no more (limit 1 s)",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, dict[str, Any]]:
    """Exit status, output and measurements of the smallest demo there is."""
    file = tmp_path_factory.mktemp("demo") / "results.json"
    command = [sys.executable, "-m", "streamkit.server.cli", "demo", "--clients", str(FEWEST)]
    process = subprocess.Popen(
        [*command, "--json", file],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "STREAMKIT_REQUEST_TIMEOUT": "0.001"},  # meant for another server
    )
    try:
        said, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    with pytest.raises(ProcessLookupError):  # its servers were in its session
        os.killpg(process.pid, 0)
    return process.returncode, said, json.loads(file.read_text())


@pytest.mark.realtime
@pytest.mark.timeout(LIMIT + 10)
def test_a_demo_drops_clients_in_every_phase_and_its_books_balance(
    demo: tuple[int, str, dict[str, Any]],
) -> None:
    status, said, results = demo

    assert status == 0, said
    assert "WRONG" not in said
    assert {cut["row"] for cut in results["cuts"]} == PHASES
    assert all(row in said for row in PHASES)
    assert "leaked: 0 requests, 0 slots, 0 queue entries" in said


@pytest.mark.realtime
@pytest.mark.timeout(LIMIT + 10)
def test_the_times_of_a_demo_are_measured_on_one_clock(
    demo: tuple[int, str, dict[str, Any]],
) -> None:
    _, _, results = demo
    times = [(cut["detected"], cut["told"], cut["proved"]) for cut in results["cuts"]]

    assert all(0 < detected <= told <= proved < 5 for detected, told, proved in times)
    assert all(cut["proof"] == "observed" for cut in results["cuts"])


@pytest.mark.realtime
@pytest.mark.timeout(LIMIT + 10)
def test_a_plain_app_makes_more_tokens_for_clients_that_left(
    demo: tuple[int, str, dict[str, Any]],
) -> None:
    _, _, results = demo
    left = [cut["id"] for cut in results["cuts"]]
    ours, stops, runs_on = (
        sum(run["by_request"][id_] for id_ in left)
        for run in (results["streamkit"], *results["plain"])
    )

    assert ours < stops < runs_on


def sound() -> Results:
    """Results with which nothing is wrong."""
    rows = {
        Aim.QUEUED: "queued",
        Aim.PREFILL: "prefill",
        Aim.DECODE: "decode",
        Aim.WHOLE: "decode, not streaming",
        Aim.SLOW: "decode, in a step of 400 ms",
        Aim.STALLED: "sending, stalled reader",
    }
    cuts = [
        Cut(
            id=f"demo-{aim}",
            row=row,
            leave=Leave.RST,
            reason="client_disconnect",
            detected=0.001,
            told=0.002,
            proved=0.01,
            proof="observed",
            tokens=3,
        )
        for aim, row in rows.items()
    ]
    run = Run(
        name="streamkit",
        work={Scene.CHAT: Work(tokens=22, steps=10)},
        by_request={cut.id: 3 for cut in cuts},
        finish=2.0,
        speed=50.0,
        idle_after=3.0,
        errors=(),
    )
    plain_work = {Scene.CHAT: Work(tokens=88, steps=40)}
    return Results(
        clients=8,
        seed=0,
        seconds=10.0,
        plan={**dict.fromkeys(rows, 1), Aim.STAY: 2},
        cuts=cuts,
        streamkit=run,
        plain=[replace(run, name="plain", work=plain_work, finish=4.0)],
        totals=[
            Totals(
                scene=Scene.CHAT,
                started=8,
                finished=2,
                cancelled=6,
                failed=0,
                running=0,
                produced=22,
                delivered=20,
                undelivered=2,
                engine_tokens=22,
                accounts_tokens=22,
            )
        ],
        after=[
            After(
                scene=Scene.CHAT,
                in_flight=0,
                running=0,
                queued=0,
                left=Footprint(threads=0, sockets=0, files=0),
                canary=0.02,
                status=0,
            )
        ],
    )


def ended(results: Results) -> tuple[int, str]:
    out = io.StringIO()
    return conclude(results, out), out.getvalue()


def test_sound_results_end_with_status_0_and_say_what_was_saved() -> None:
    status, said = ended(sound())

    assert status == 0
    assert "75% of the engines' time (30 steps, 66 tokens)" in said
    assert "2.0× as soon" in said
    assert said.rstrip().splitlines()[-1].startswith("All books balance, nothing leaked: 6 cancels")


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        pytest.param({"started": 9}, "9 requests started, but 2 finished", id="a lost request"),
        pytest.param({"delivered": 19}, "22 tokens were produced, but 19", id="a lost token"),
        pytest.param({"engine_tokens": 23}, "own log says 23 tokens", id="the engine disagrees"),
        pytest.param({"accounts_tokens": 21}, "one by one says 21 tokens", id="a wrong total"),
        pytest.param({"failed": 1, "finished": 1}, "1 requests failed", id="a failure"),
        pytest.param({"cancelled": 5, "finished": 3}, "the ledgers say 5", id="a cancel too few"),
        pytest.param({"violations": 1}, "do not balance 1 times", id="the ledger's own check"),
        pytest.param({"quarantined": 1}, "never proved", id="no proof"),
    ],
)
def test_broken_books_end_with_status_1_and_are_named(broken: dict[str, int], named: str) -> None:
    results = sound()

    status, said = ended(replace(results, totals=[replace(results.totals[0], **broken)]))

    assert status == 1
    assert named in said.partition("WRONG: ")[2]


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        pytest.param({"in_flight": 1}, "1 requests in flight leaked", id="request"),
        pytest.param({"running": 2}, "2 slots leaked", id="slot"),
        pytest.param({"queued": 1}, "1 queue entries leaked", id="queue entry"),
        pytest.param(
            {"left": Footprint(threads=1, sockets=0, files=0)}, "1 threads leaked", id="thread"
        ),
        pytest.param(
            {"left": Footprint(threads=0, sockets=2, files=0)}, "2 sockets leaked", id="socket"
        ),
        pytest.param({"canary": None}, "a new request was not served", id="canary"),
        pytest.param({"status": -9}, "ended with status -9", id="killed"),
    ],
)
def test_a_leak_ends_with_status_1_and_is_named(broken: dict[str, Any], named: str) -> None:
    results = sound()

    status, said = ended(replace(results, after=[replace(results.after[0], **broken)]))

    assert status == 1
    assert named in said.partition("WRONG: ")[2]


def test_a_phase_that_nobody_was_dropped_in_is_named() -> None:
    results = sound()
    missed = [cut for cut in results.cuts if cut.row != "prefill"]
    totals = [replace(results.totals[0], cancelled=5, finished=3)]

    assert problems(replace(results, cuts=missed, totals=totals)) == [
        "no client was met by its cancel in the phase it aimed at: prefill"
    ]


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        pytest.param({"reason": "deadline"}, "cut short for deadline", id="reason"),
        pytest.param({"proof": None}, "was not proved to have stopped", id="proof"),
        pytest.param({"misbehaviour": "ignored"}, "broke its word", id="misbehaviour"),
    ],
)
def test_a_cancel_that_was_not_as_it_should_be_is_named(broken: dict[str, Any], named: str) -> None:
    results = sound()
    cuts = [replace(results.cuts[0], **broken), *results.cuts[1:]]

    assert named in problems(replace(results, cuts=cuts))[0]


def test_a_client_that_had_trouble_and_an_engine_that_goes_on_are_named() -> None:
    results = sound()
    run = replace(results.plain[0], errors=("demo-1 (stays): reset",), idle_after=None)

    assert problems(replace(results, plain=[run])) == [
        "plain: client demo-1 (stays): reset",
        "plain: its engines were still busy when the demo gave up waiting",
    ]


ACCOUNT = {
    "id": "a",
    "cancelled_in": "decode",
    "arrived_at": 10.0,
    "detected_after": 2.5,
    "told_after": 0.25,
    "proved_after": 0.5,
    "seconds": {"decode": 2.5},
    "reason": "client_disconnect",
    "proof": "observed",
    "tokens": 7,
    "misbehaviour": None,
}


def stay(*, began_at: float) -> Stay:
    visit = make_plan(FEWEST, 0).of(Aim.DECODE)[0]
    return Stay(visit=visit, began_at=began_at, ended_at=began_at + 4, left_at=began_at + 3)


def test_times_count_from_the_clients_own_stamp() -> None:
    cut = cut_of(stay(began_at=9.0), ACCOUNT)

    assert cut is not None
    assert (cut.detected, cut.told, cut.proved) == (0.5, 0.75, 1.0)


def test_times_on_another_clock_are_not_made_up() -> None:
    cut = cut_of(stay(began_at=50_000.0), ACCOUNT)

    assert cut is not None
    assert (cut.detected, cut.told, cut.proved) == (None, None, None)


@pytest.mark.parametrize("clients", [FEWEST, 13, 40, MOST])
def test_a_plan_has_every_aim_and_fills_the_slots_before_anybody_queues(clients: int) -> None:
    plan = make_plan(clients, seed=1)
    chat = [visit for visit in plan.visits if visit.scene is Scene.CHAT]
    first = [visit for visit in chat if visit.first]

    assert len({visit.id for visit in plan.visits}) == clients
    assert all(plan.of(aim) for aim in Aim)
    assert {visit.leave for visit in plan.of(Aim.STALLED)} == {Leave.RST, Leave.STOP_READING}
    assert len(first) == plan.engines[Scene.CHAT]["slots"]
    assert {visit.aim for visit in first} <= {Aim.STAY, Aim.DECODE}


def test_the_seed_decides_the_plan() -> None:
    assert make_plan(40, 1) == make_plan(40, 1)
    assert make_plan(40, 1) != make_plan(40, 2)


@pytest.mark.parametrize(
    ("manner", "stream", "tokens"),
    [
        pytest.param(Manner.STOPS, True, 4, id="engine stops, streaming"),
        pytest.param(Manner.STOPS, False, 20, id="engine stops, not streaming"),
        pytest.param(Manner.RUNS_ON, True, 20, id="engine runs on, streaming"),
    ],
)
async def test_a_plain_app_does_what_starlette_does_and_no_more(
    manner: Manner, stream: bool, tokens: int
) -> None:
    engine = FakeEngine(slots=1, step_ms=100)
    app = Plain({"chat": engine}, manner).app("")
    exchange = Exchange(
        app,
        path="/chat/generate",
        json={"prompt": "a b", "max_tokens": 20, "stream": stream},
        headers={"x-request-id": "a"},
        leaves_after_seconds=0.35,
    )
    await exchange.run()
    while engine.statistics().running:
        await engine.fence()

    assert engine.log.tokens == tokens
    await engine.aclose()


@pytest.mark.realtime
async def test_a_server_that_does_not_start_is_quoted() -> None:
    script = "import sys; sys.exit('the disk is full')"

    with pytest.raises(CannotStart, match=r"ended with status 1 .*: the disk is full"):
        async with running({"broken": (sys.executable, "-c", script)}):
            pass


@pytest.mark.parametrize("clients", ["11", "201", "x", "-1"])
def test_a_number_of_clients_that_cannot_be_is_wrong_usage(
    clients: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["demo", "--clients", clients])

    assert end.value.code == 2
    assert f"expected a number from 12 to 200, got '{clients}'" in capsys.readouterr().err


@pytest.mark.realtime
@pytest.mark.timeout(LIMIT)
def test_an_interrupted_demo_leaves_no_server_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "streamkit.server.cli", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while "on streamkit serve" not in process.stdout.readline():  # all servers run
        assert process.poll() is None
    process.send_signal(2)
    _, complaint = process.communicate(timeout=30)

    assert complaint == "streamkit: interrupted; all servers have been stopped\n"
    assert process.returncode == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
