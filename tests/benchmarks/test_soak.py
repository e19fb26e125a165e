"""A short soak passes, what it must show can fail, and the same seed brings the same clients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak import page
from benchmarks.soak.__main__ import main
from benchmarks.soak.crowd import ENGINE, Crowd, plan
from benchmarks.soak.judge import Evidence, judge, slope
from benchmarks.soak.served import Sample

SHORT = ("--minutes=0.01", "--step-ms=1", "--stay=0.2", "--slope=20000")
DOCS = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.realtime
@pytest.mark.timeout(90)
def test_a_short_soak_of_the_fake_engine_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / page.PAGE).write_text("<!-- generated -->\n<!-- end -->\n")
    status = main(["--clients=200", f"--out={tmp_path}", *SHORT])

    assert status == 0, capsys.readouterr().out
    report = json.loads((tmp_path / page.RESULTS).read_text())
    assert (report["clients"], all(check["good"] for check in report["checks"])) == (200, True)
    assert page.generated(report) in (tmp_path / page.PAGE).read_text()


@pytest.mark.realtime
@pytest.mark.timeout(90)
def test_memory_that_is_kept_and_a_byte_that_is_altered_are_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = "--target=tests.benchmarks.soak_models:Spoilt"
    status = main(["--clients=60", "--no-page", "--seed=3", target, *SHORT])

    assert status == 1
    said = capsys.readouterr().out
    bad = {line.split()[1] for line in said.splitlines() if line.startswith("BAD")}
    assert bad == {"survivors", "memory"}, said
    assert f"again: python -m benchmarks.soak --clients=60 --no-page --seed=3 {target}" in said


def test_the_same_seed_brings_the_same_clients_at_the_same_times() -> None:
    clients = plan(7, 2_000, 60, ENGINE)

    assert clients == plan(7, 2_000, 60, ENGINE) != plan(8, 2_000, 60, ENGINE)
    assert sum(client.stays for client in clients) == 1_000
    assert len({client.fault.way for client in clients}) > 8
    assert {client.kind.name for client in clients if client.stays} == {k.name for k in ENGINE}


def sample(ended: float, rss: float, fds: int = 10, threads: int = 2) -> Sample:
    return Sample(at=ended, rss=rss, fds=fds, threads=threads, ended=ended)


def test_memory_that_grows_only_in_the_beginning_is_flat() -> None:
    steps = [sample(ended, min(ended, 400) * 10) for ended in range(0, 1_001, 50)]

    assert slope(steps) == 0
    assert slope([sample(ended, ended * 2) for ended in range(0, 1_001, 50)]) == pytest.approx(2000)


METRICS = {
    "streamkit_tokens_produced_total[]": 10.0,
    "streamkit_tokens_delivered_total[]": 8.0,
    "streamkit_tokens_undelivered_total[('phase', 'decode')]": 2.0,
    "streamkit_engine_tokens_total[]": 10.0,
    "streamkit_requests_received_total[]": 3.0,
    "streamkit_requests_ended_total[('outcome', 'finished'), ('phase', ''), ('reason', '')]": 1.0,
    "streamkit_requests_ended_total[('outcome', 'cancelled'), ('phase', 'decode')]": 2.0,
}
REST = {
    "running": 0,
    "queued": 0,
    "quarantined": 0,
    "misbehaviours": {},
    "failure": None,
    "tokens": 10,
}
EVIDENCE = Evidence(
    crowd=Crowd("", 1, 1),
    words={},
    before=sample(0, 0),
    after=sample(3, 0),
    samples=[sample(0, 0), sample(3, 0)],
    rested=True,
    metrics=METRICS,
    engine=REST,
    access=[{"method": "POST", "id": str(number), "produced": 5 - number} for number in (0, 1, 4)],
    status=0,
)


@pytest.mark.parametrize(
    ("change", "bad"),
    [
        ({}, set()),
        ({"after": sample(3, 0, fds=11)}, {"descriptors"}),
        ({"after": sample(3, 0, threads=3)}, {"threads"}),
        ({"rested": False}, {"at rest"}),
        ({"engine": {**REST, "quarantined": 1}}, {"at rest"}),
        ({"engine": {**REST, "tokens": 11}}, {"tokens"}),
        ({"metrics": {**METRICS, "streamkit_tokens_delivered_total[]": 9.0}}, {"tokens"}),
        ({"metrics": {**METRICS, "streamkit_ledger_violations_total[]": 1.0}}, {"tokens"}),
        (
            {"metrics": {**METRICS, "streamkit_requests_received_total[]": 4.0}},
            {"requests", "one outcome each"},
        ),
        ({"access": [*EVIDENCE.access, EVIDENCE.access[0]]}, {"tokens", "one outcome each"}),
        ({"complaints": ["Traceback (most recent call last):"]}, {"log"}),
        ({"status": 1}, {"log"}),
    ],
)
def test_each_check_fails_for_what_it_is_there_for(change: dict, bad: set[str]) -> None:
    checks = judge(replace(EVIDENCE, **change))

    # Nobody stayed here: the two runs above are about that.
    assert {check.name for check in checks if not check.good} - {"survivors"} == bad


@pytest.mark.parametrize("arguments", [["--minutes=21"], ["--minutes=0"], ["--clients=1"]])
def test_a_run_that_would_be_too_long_or_empty_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2


def test_the_page_says_what_its_json_says() -> None:
    report = json.loads((DOCS / page.RESULTS).read_text())

    assert page.generated(report) in (DOCS / page.PAGE).read_text()
    assert report["clients"] >= 10_000
    assert all(check["good"] for check in report["checks"])
