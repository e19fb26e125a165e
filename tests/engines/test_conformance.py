"""The conformance kit catches what lies, and lets pass what keeps its word."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from streamkit.engines import Engine, FakeEngine, LadderLimits, Proof
from streamkit.engines._fake._lies import LIES
from streamkit.testing import PHASES, WAYS, CheckPlan, EngineReport, check_engine
from streamkit.testing.check import main
from tests.engine_reports import keep

from .adapters import BY_ID, ById, ByIdAnswering, Connected, Threaded
from .adapters_flawed import (
    Blind,
    Careless,
    Complaining,
    EndsLate,
    ForgetsItsEnd,
    GivesMore,
    Hasty,
    Lenient,
    Literal,
    Littering,
    Miscounts,
    Moody,
    Picky,
    Promises,
    Raises,
    RunsOn,
    SaysYes,
    SubmitsAnyway,
    Twist,
    Twisted,
)
from .stand_in import WordEngine

pytestmark = [pytest.mark.asyncio_only, pytest.mark.timeout(120)]

SHORT = CheckPlan(
    phases=("turn 5", "queued", "prefill", "decode"),
    ways=("cancel", "task"),
    cancels=8,
    patience=20,
)


def claims(report: EngineReport) -> set[str]:
    return {finding.claim for finding in report.findings}


# -- what keeps its word -------------------------------------------------------------------------


async def test_the_honest_fake_passes_in_full() -> None:
    report = await check_engine(lambda: FakeEngine(slots=1))

    report.raise_if_failed()
    await keep(report, "fake")
    assert report.passed
    assert report.cancels == 200
    assert {trial.phase for trial in report.trials} == set(PHASES)
    assert {trial.way for trial in report.trials} == set(WAYS)
    assert all(
        trial.stopped is not None and trial.stopped <= 0.02 + 1e-9
        for trial in report.trials
        if trial.phase == "decode"
    )
    assert not report.told
    assert set(report.unverified) == {"early_cancel_safe", "thread_safe_cancel", "death"}


@pytest.mark.parametrize(
    "options",
    [{"slots": 4}, {"slots": 1, "speculative": 4}, {"slots": 1, "kill": True}],
    ids=str,
)
async def test_an_honest_fake_of_another_shape_passes(options: dict[str, Any]) -> None:
    report = await check_engine(lambda: FakeEngine(**options), replace(CheckPlan(), cancels=40))

    report.raise_if_failed()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ById(WordEngine()),
        lambda: ById(WordEngine(slots=3)),
        lambda: ByIdAnswering(WordEngine()),
        Connected,
    ],
    ids=["by id", "three slots", "answering", "connection"],
)
async def test_each_asynchronous_driver_passes_in_full(make: Callable[[], Engine]) -> None:
    report = await check_engine(make)

    report.raise_if_failed()
    assert len(report.trials) == 86


@pytest.mark.realtime
async def test_the_driver_of_threads_passes_in_full() -> None:
    plan = CheckPlan(cancels=100, bound=5, wake_bound=2, canary_slack=2, block_limit=2)
    limits = LadderLimits(stop_bound=5)  # a busy machine may stand still for a second

    report = await check_engine(lambda: Threaded(limits=limits), plan)

    report.raise_if_failed()
    assert report.verified["proof"] == "claims joined; gave joined at least"
    assert "backpressure" in report.verified


# -- what lies -----------------------------------------------------------------------------------

CAUGHT = {
    "ignore_abort": {"stop", "canary", "cancel_queued", "extra_steps"},
    "lose_abort:2": {"stop", "canary", "cancel_queued"},
    "ack_and_run_on": {"stop", "canary", "proof", "extra_steps"},
    "answer_late:1.5": {"stop", "canary", "fence"},
    "answer_late:0.5": {"extra_steps", "canary"},
    "never_answer": {"answers_cancel", "fence"},
    "crash": {"alive"},
    "crash:100": {"alive"},
}
NAMED = {
    "ignore_abort": "ignored",
    "lose_abort:2": "lost",
    "ack_and_run_on": "runs_on",
    "answer_late:1.5": "late",
    "never_answer": "no last word",
    "crash": "SimulatedCrash",
}


@pytest.mark.parametrize("lie", CAUGHT)
async def test_a_lying_fake_is_caught(lie: str) -> None:
    report = await check_engine(lambda: FakeEngine(slots=1, lie=lie), SHORT)

    assert not report.passed
    assert CAUGHT[lie] <= claims(report)
    assert NAMED.get(lie, "") in str(report)
    with pytest.raises(AssertionError, match="FAILED"):
        report.raise_if_failed()


@pytest.mark.realtime
async def test_an_engine_that_blocks_the_loop_is_caught() -> None:
    plan = replace(SHORT, phases=("decode",), cancels=4)

    report = await check_engine(lambda: FakeEngine(slots=1, step_ms=2, lie="block:0.3"), plan)

    assert "loop" in claims(report)


def test_every_lie_has_a_test() -> None:
    assert {lie.partition(":")[0] for lie in CAUGHT} | {"block"} == set(LIES)


# -- adapters that are wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "claim"),
    [
        (lambda: ById(WordEngine(flaw="deaf")), "stop"),
        (lambda: Hasty(WordEngine(handover=8)), "canary"),
        (Literal, "neighbour"),
        (Littering, "leak"),
        (lambda: Blind(WordEngine()), "observes"),
        (RunsOn, "canary"),
    ],
    ids=["deaf", "forgets early cancels", "by prefix", "leaks tasks", "blind books", "runs on"],
)
async def test_an_adapter_that_is_wrong_is_caught(make: Callable[[], Engine], claim: str) -> None:
    plan = replace(SHORT, phases=("turn 3", "turn 5", "decode"), cancels=40)

    report = await check_engine(make, plan)

    assert claim in claims(report)


@pytest.mark.parametrize(
    ("twist", "claim", "seen"),
    [
        (SaysYes, "cancel", "should be True"),
        (Raises, "reader", "instead of ending"),
        (GivesMore, "reader", "1 tokens after the cancel"),
        (EndsLate, "reader", "ended only 0.5 s"),
        (Miscounts, "books", "handed over"),
        (ForgetsItsEnd, "books", "had ended was cancelled"),
        (SubmitsAnyway, "stop", "submitted all the same"),
    ],
)
async def test_a_generation_that_is_wrong_is_caught(
    twist: type[Twist], claim: str, seen: str
) -> None:
    plan = replace(
        CheckPlan(), cancels=4, phases=("new", "decode", "after the end"), ways=("cancel", "twice")
    )

    report = await check_engine(lambda: Twisted(twist), plan)

    assert seen in "".join(finding.seen for finding in report.findings if finding.claim == claim)


async def test_an_abort_that_raises_is_caught() -> None:
    report = await check_engine(lambda: Complaining(WordEngine()), SHORT)

    assert claims(report) == {"abort"}
    assert "ConnectionResetError" in str(report)


async def test_what_computes_behind_empty_books_is_caught() -> None:
    report = await check_engine(lambda: ById(WordEngine(slots=4, flaw="ghost")), SHORT)

    assert "tokens in ten steps when all had been ended" in str(report)


async def test_an_early_cancel_is_lost_only_early() -> None:
    plan = replace(CheckPlan(), cancels=8, die=lambda engine: engine.engine.die())

    report = await check_engine(lambda: Hasty(WordEngine(handover=8)), plan)

    [finding] = [each for each in report.findings if each.claim == "canary"]
    assert all(trial.startswith("turn ") for trial in finding.trials)
    (await check_engine(lambda: ById(WordEngine(handover=8)), plan)).raise_if_failed()


async def test_a_cancel_that_needs_the_loops_thread_is_caught() -> None:
    plan = replace(SHORT, ways=("cancel", "thread"))

    report = await check_engine(lambda: Careless(WordEngine()), plan)

    [finding] = [each for each in report.findings if each.claim == "cancel"]
    assert "RuntimeError" in finding.seen
    assert all(trial.endswith("/thread") for trial in finding.trials)


async def test_an_entry_left_in_a_registry_is_caught() -> None:
    plan = replace(
        SHORT, cancels=40, registries=lambda engine: {"records": len(engine.engine.records)}
    )

    report = await check_engine(lambda: ById(WordEngine(flaw="leaks")), plan)

    assert claims(report) == {"leak"}
    assert "registry records" in str(report)


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (lambda: Promises("stop"), r"stop at '7 ' gave .*'length', not .* and 'stop'"),
        (lambda: Promises("logprobs"), r"logprobs came for 0 of 12 tokens"),
        (lambda: Promises("best_of"), r"takes best_of, which no request can ask for"),
        (Moody, r"seed gave '.*', then '.*'"),
        (lambda: Lenient(WordEngine()), r"does not take seed, and does not refuse it"),
        (lambda: Picky(WordEngine()), r"messages raised ValueError\('no messages, please'\)"),
    ],
    ids=["stop", "logprobs", "unknown", "seed", "drops", "messages"],
)
async def test_an_option_that_is_taken_and_not_heeded_is_caught(
    make: Callable[[], Engine], seen: str
) -> None:
    plan = replace(SHORT, phases=("decode",), cancels=4)

    report = await check_engine(make, plan)

    assert claims(report) == {"takes"}
    assert re.search(seen, str(report))


async def test_what_is_heeded_is_named() -> None:
    report = await check_engine(lambda: FakeEngine(slots=1), replace(SHORT, phases=("decode",)))

    assert report.verified["takes"] == (
        "heeds logprobs, prompt_ids, seed, temperature, top_p; refuses the others by name"
    )


# -- claims --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "value", "flaw"),
    [
        ("kill", True, None),
        ("backpressure", True, None),
        ("extra_steps", 0, None),
        ("answers_cancel", "always", None),
        ("answers_cancel", "running", None),
        ("proof", Proof.JOINED, None),
        ("cancel_queued", True, "patient"),
        ("cancel_prefill", "chunk", "busy"),
    ],
)
async def test_a_claim_that_is_too_large_fails(claim: str, value: Any, flaw: str | None) -> None:
    capabilities = replace(BY_ID, **{claim: value})

    report = await check_engine(lambda: ById(WordEngine(flaw=flaw), capabilities), SHORT)

    assert claim in claims(report)


@pytest.mark.parametrize(
    ("claim", "value"),
    [("cancel_queued", False), ("cancel_prefill", "none"), ("proof", Proof.FENCED)],
)
async def test_a_claim_that_is_too_small_is_told(claim: str, value: Any) -> None:
    capabilities = replace(BY_ID, **{claim: value})

    report = await check_engine(lambda: ById(WordEngine(), capabilities), SHORT)

    assert claim not in claims(report)
    if claim != "proof":  # FENCED is reached first, and is enough
        assert any(remark.startswith(f"{claim}:") for remark in report.told)


async def test_an_honest_claim_of_none_gives_the_prefill_its_time() -> None:
    capabilities = replace(BY_ID, cancel_prefill="none")

    report = await check_engine(lambda: ById(WordEngine(flaw="busy"), capabilities), SHORT)

    report.raise_if_failed()
    assert not report.told


# -- the rest ------------------------------------------------------------------------------------


async def test_the_death_of_an_engine_is_tried_where_it_can_be() -> None:
    plan = replace(SHORT, die=lambda engine: engine.engine.die())

    report = await check_engine(lambda: ById(WordEngine()), plan)

    report.raise_if_failed()
    assert "EngineFailed" in report.verified["death"]


async def test_a_death_that_nobody_is_told_of_is_caught() -> None:
    plan = replace(SHORT, die=lambda engine: engine.engine.entries.clear(), patience=5)

    report = await check_engine(lambda: ById(WordEngine()), plan)

    assert "death" in claims(report)


async def test_a_factory_may_be_async() -> None:
    async def make() -> Engine:
        return ById(WordEngine())

    (await check_engine(make, SHORT)).raise_if_failed()


async def test_an_engine_that_never_answers_is_given_up() -> None:
    report = await check_engine(lambda: FakeEngine(lie="crash:1"), replace(SHORT, patience=1))

    assert claims(report) == {"alive"}
    assert report.trials == []


async def test_a_report_is_plain_values_and_a_table() -> None:
    report = await check_engine(lambda: FakeEngine(slots=1), SHORT)

    data = json.loads(json.dumps(report.as_json()))
    assert data["passed"]
    assert len(data["trials"]) == len(report.trials)
    lines = str(report).splitlines()
    assert lines[0] == "engine fake: passed, 8 trials, 8 cancels in the search for leaks"
    assert "decode   cancel  0.0        20.0        observed  1             40.0" in lines


def test_a_plan_knows_its_phases_and_ways() -> None:
    with pytest.raises(ValueError, match=r"unknown phases: \['mid'\]; known: new, turn 0"):
        CheckPlan(phases=("mid",))
    with pytest.raises(ValueError, match="unknown ways"):
        CheckPlan(ways=("run",))


def test_the_command_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--virtual-time", "--cancels", "4", "--phase", "decode", "--way", "cancel"]

    assert main(["streamkit.engines:FakeEngine", *few]) == 0
    assert "engine fake: passed, 1 trials" in capsys.readouterr().out
    assert main(["streamkit.engines:FakeEngine", *few, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    with pytest.raises(SystemExit) as caught:
        main(["streamkit.engines:Nobody"])
    assert caught.value.code == 2
    assert "cannot load" in capsys.readouterr().err
