"""`streamkit check`: what it prints, for people and for machines, and its exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamkit.runner._model._check import Code
from streamkit.server import cli

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "check.md"
GOOD = """\
import asyncio

from fastapi import Request


class Model:
    def load(self):
        self.words = ["a", "b"]

    def preprocess(self, inputs: dict):
        return inputs

    async def predict(self, inputs, request: Request):
        for word in self.words:
            await asyncio.sleep(0)
            yield word
"""
SLOPPY = GOOD.replace("await asyncio.sleep(0)", "time.sleep(1)").replace("asyncio", "time")
REFUSED = GOOD.replace("request: Request", "request")
SAID = """\
model.py:6: class Model would load

  method      line  kind             takes               when a cancel comes
  load           7  function                             belongs to no request; a signal ends it
  preprocess    10  function         inputs              runs to its end on its thread: nothing in it asks
  predict       13  async generator  inputs and request  interrupted at its await or closed at its yield; `finally` runs

  payload: parsed and validated as `dict`, for preprocess (line 10)
"""  # noqa: E501 - as it is printed


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_good_model_is_shown_and_nothing_is_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.py").write_text(GOOD)

    assert cli.main(["check", "model.py"]) == 0

    assert capsys.readouterr() == (SAID, "")


def test_a_finding_is_a_line_with_its_place_and_its_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.py").write_text(SLOPPY)

    assert cli.main(["check", "model.py"]) == 0

    said = capsys.readouterr().out
    assert said.startswith("model.py:6: class Model would load: 1 warning\n")
    assert said.splitlines()[-1] == (
        "model.py:15: warning: predict: time.sleep() holds the event loop: no other request moves "
        "and no cancel is heard meanwhile; use `await asyncio.sleep()` [blocks-loop]"
    )


def test_a_model_that_would_be_refused_is_status_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.py").write_text(REFUSED)

    assert cli.main(["check", "model.py"]) == 1

    said = capsys.readouterr().out
    assert said.startswith("model.py:6: class Model would be refused: 1 error\n")
    assert "\nmodel.py:13: error: Model.predict(inputs, request): " in said


@pytest.mark.parametrize("target", ["model.py", "model.py:Model", "model:Model", "folder"])
def test_a_target_is_what_serve_takes(
    folder: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.py").write_text(GOOD)
    (folder / "folder" / "model").mkdir(parents=True)
    (folder / "folder" / "config.yaml").write_text("model_name: tiny\n")
    (folder / "folder" / "model" / "model.py").write_text(GOOD)

    assert cli.main(["check", target]) == 0

    place = "folder/model/" if target == "folder" else ""
    assert capsys.readouterr().out == SAID.replace("model.py:", f"{place}model.py:")


def test_a_finding_in_the_config_has_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model").mkdir()
    (folder / "config.yaml").write_text("# nothing\nrequirements: [torch]\n")
    (folder / "model" / "model.py").write_text(GOOD)

    assert cli.main(["check", "."]) == 0

    said = capsys.readouterr().out
    assert said.startswith("model/model.py:6: class Model would load: 1 note\n")
    assert "\nconfig.yaml:2: note: requirements: " in said


def test_the_reference_page_shows_what_is_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.read_text()
    blocks = dict(re.findall(r"```(python|console)\n(.*?)```", page, re.DOTALL))
    (folder / "model.py").write_text(blocks["python"])

    assert cli.main(["check", "model.py"]) == 0

    assert f"$ streamkit check model.py\n{capsys.readouterr().out}" == blocks["console"]


def test_the_reference_page_has_every_code() -> None:
    table = PAGE.read_text().partition("<!-- codes -->")[2].partition("<!-- /codes -->")[0]

    assert re.findall(r"^\| `(.*?)`", table, re.MULTILINE) == list(Code)


def test_machines_get_one_json_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.py").write_text(SLOPPY)

    assert cli.main(["check", "--json", "model.py"]) == 0

    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    file = str(folder / "model.py")
    assert (report["file"], report["class"], report["line"]) == (file, "Model", 6)
    assert (report["loads"], report["payload_parsed"]) == (True, True)
    assert report["methods"][2] == {
        "name": "predict",
        "line": 13,
        "kind": "async generator",
        "takes": "inputs and request",
        "asks": False,
        "cancel": "interrupted at its await or closed at its yield; `finally` runs",
    }
    [finding] = report["findings"]
    assert finding.pop("text").startswith("predict: time.sleep() holds the event loop")
    assert finding == {
        "file": file,
        "line": 15,
        "severity": "warning",
        "code": "blocks-loop",
        "method": "predict",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.py"], "streamkit check: 'nowhere.py': there is no file"),
        (["model.py:Other"], "there is no class Other"),
        ([], "the following arguments are required: TARGET"),
        (["--fast", "model.py"], "unrecognized arguments: --fast"),
    ],
)
def test_wrong_usage_is_status_2(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.py").write_text(GOOD)

    try:
        status = cli.main(["check", *arguments])
    except SystemExit as ended:  # argparse's way out
        status = int(ended.code or 0)

    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_config_that_cannot_be_used_is_status_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.yaml").write_text("runtime:\n  predict_concurrency: none\n")

    assert cli.main(["check", "."]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert "runtime.predict_concurrency" in err


def test_help_names_the_command_and_its_exit_statuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([]) == 2
    assert "check   say how a model class will be cancelled" in capsys.readouterr().err

    with pytest.raises(SystemExit):
        cli.main(["check", "--help"])

    said = capsys.readouterr().out
    assert "exit status: 0 it would load" in said
    assert "1 it would be refused" in said
    assert "2 wrong usage" in said


@pytest.mark.realtime
def test_neither_the_model_nor_a_web_framework_is_imported(folder: Path) -> None:
    (folder / "model.py").write_text(f"raise SystemExit\n{GOOD}")
    script = (
        "import sys; from streamkit.server.cli import main; status = main(['check', 'model.py']);"
        "heavy = {'fastapi', 'model', 'prometheus_client', 'starlette', 'uvicorn'};"
        "heavy &= {*sys.modules};"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )

    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("model.py:7: class Model would load\n")
