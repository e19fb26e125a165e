"""`streamkit engines` says of each engine what can be known before one is made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streamkit.engines import Capabilities, KnownEngine, Proof, engine_names, known_engine
from streamkit.server import cli

ROOT = Path(__file__).parents[2]
HEAVY = ("vllm", "torch", "transformers", "llama_cpp", "tensorrt_llm", "sglang")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["engines", *arguments]) == 0
    return capsys.readouterr().out


def test_each_engine_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = said(capsys).splitlines()

    assert "installed  " in head
    assert head.split()[0] == "engine"
    assert [line.split()[0] for line in lines] == list(engine_names())
    fake = lines[engine_names().index("fake")]
    assert [part.strip() for part in fake.split("  ") if part] == [
        "fake",
        "built in",
        "leaves it",
        "ends at the next chunk",
        "1 more step at most",
        "observed",
    ]


def test_one_engine_is_described_with_what_it_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "vllm")

    assert "  queue     leaves it\n" in text
    assert "  proof     fenced\n" in text
    assert "takes     frequency_penalty, logprobs" in text
    assert "options   model, tokenizer" in text
    assert "not possible\n" in text
    assert "  kill: its engine core is one process for all requests\n" in text


def test_for_machines_it_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    engines = json.loads(said(capsys, "--json"))

    assert [each["name"] for each in engines] == list(engine_names())
    fake = json.loads(said(capsys, "--json", "fake"))
    assert fake == [each for each in engines if each["name"] == "fake"]
    assert fake[0]["installed"] is True
    assert fake[0]["install"] is None
    assert fake[0]["capabilities"]["proof"] == "observed"
    assert fake[0]["reach"]["prefill"] == "ends at the next chunk"
    assert "slots" in fake[0]["options"]


def test_an_unknown_engine_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["engines", "fake", "vlllm"]) == 2
    assert capsys.readouterr().err == (
        f"streamkit engines: unknown engine 'vlllm'; known: {', '.join(engine_names())}\n"
    )


@pytest.mark.realtime
def test_no_engine_is_imported_for_it() -> None:
    script = (
        "import sys; from streamkit.server import cli; cli.main(['engines', '--json']);"
        f"sys.exit(', '.join(set({HEAVY}) & set(sys.modules)))"
    )

    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert run.stderr.strip() == ""


def test_what_is_not_installed_is_listed_with_what_installs_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = said(capsys).splitlines()[1:]

    for name, line in zip(engine_names(), lines, strict=True):
        engine = known_engine(name)
        assert (f"no: {engine.install}" in line) is not engine.installed
        assert engine.install or not engine.package


def known(**capabilities: object) -> KnownEngine:
    return KnownEngine(
        name="x",
        make=lambda: None,  # type: ignore[arg-type,return-value]
        options={},
        capabilities=Capabilities(proof=Proof.SENT, **capabilities),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("claim", "where", "words"),
    [
        ({"cancel_queued": False}, "queue", "waits for its turn"),
        ({"cancel_prefill": "none"}, "prefill", "runs to its end"),
        ({"cancel_prefill": "layer"}, "prefill", "ends at the next layer"),
        ({"cancel_prefill": "node"}, "prefill", "ends at the next operation"),
        ({"extra_steps": 0}, "decode", "ends at once"),
        ({"extra_steps": 2}, "decode", "2 more steps at most"),
    ],
)
def test_a_claim_in_words(claim: dict[str, object], where: str, words: str) -> None:
    assert known(**claim).reach[where] == words


@pytest.mark.parametrize("package", ["no_such_package", "no_such_package.inside"])
def test_a_package_that_is_not_there_is_not_installed(package: str) -> None:
    engine = KnownEngine(
        name="x",
        make=lambda: None,  # type: ignore[arg-type,return-value]
        options={},
        capabilities=Capabilities(proof=Proof.SENT),
        package=package,
    )

    assert not engine.installed
