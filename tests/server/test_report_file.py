"""A report that cannot be written is refused before the minutes that it takes to measure it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamkit.server import cli
from streamkit.server.demo._report_file import CannotWrite, report_file, write_report

NOBODY = "http://127.0.0.1:9"  # whoever asks there ends with status 1


@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--json"],
        ["chaos", NOBODY, "--json"],
        ["chaos", NOBODY, "--html"],
        ["doctor", NOBODY, "--json"],
    ],
    ids=" ".join,
)
def test_a_report_that_cannot_be_written_is_status_2_before_anything_is_done(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "not there" / "report"

    with pytest.raises(SystemExit) as ended:
        cli.main([*command, str(file)])

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"cannot write {str(file)!r}: {file.parent} is no folder" in said


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it is a folder"),
        ("a file/report", "a file is no folder"),
        ("x" * 300, "File name too long"),
        pytest.param(
            "locked/report",
            "it is not permitted",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere"),
        ),
    ],
)
def test_it_is_said_why(
    name: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "locked").mkdir(0o500)

    with pytest.raises(SystemExit):
        cli.main(["doctor", NOBODY, "--json", str(tmp_path / name)])

    assert why in capsys.readouterr().err


def test_what_lies_there_stays_until_there_is_a_report(tmp_path: Path) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    there.write_text("of last week")

    assert (report_file(str(there)), report_file(str(new))) == (there, new)

    assert there.read_text() == "of last week"
    assert not new.exists()


def test_a_disk_that_is_full_is_told_with_the_name_of_the_file() -> None:
    with pytest.raises(CannotWrite, match=r"cannot write /dev/full: No space left"):
        write_report(Path("/dev/full"), {"a": 1})
