"""The command line: what it is told wrongly it says in one line, with the status that fits."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit import __version__
from streamkit.engines import engine_names
from streamkit.server import _serve, cli

from .serving import run


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A server that began to start has set it up, and what the next test costs would be logged."""
    root, access = logging.getLogger(), logging.getLogger("streamkit.access")
    before = root.handlers[:], root.level, access.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])  # not the attribute: loggers remember who is enabled
    access.setLevel(before[2])


def status_of(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as ended:  # argparse's way out
        return int(ended.code or 0)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--version") == 0
    assert capsys.readouterr().out == f"streamkit {__version__}\n"


def test_help_names_the_commands_and_the_exit_statuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status_of("--help") == 0
    text = capsys.readouterr().out
    assert "serve   serve a model class or an engine over HTTP" in text
    assert "demo    watch clients leave, and the engine stop" in text
    assert "2 wrong usage" in text


def test_help_for_serve_names_every_setting_and_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status_of("serve", "--help") == 0
    text = capsys.readouterr().out
    assert "--drain-grace SECONDS" in text
    assert "--http auto|h11|httptools" in text
    assert "ready on http://HOST:PORT" in text
    assert "options of engine fake:" in text
    assert "step_ms" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "usage: streamkit COMMAND", id="nothing"),
        pytest.param(["fly"], "invalid choice: 'fly'", id="unknown command"),
        pytest.param(["--fly"], "unrecognized arguments: --fly", id="unknown flag"),
        pytest.param(["serve", "--fly"], "unrecognized arguments: --fly", id="serve: unknown flag"),
        pytest.param(["serve", "--por", "1"], "unrecognized arguments", id="serve: half a flag"),
        pytest.param(["serve", "--port"], "--port: expected one argument", id="serve: no value"),
        pytest.param(
            ["serve", "my.module:Model"],
            "streamkit: 'my.module:Model': there is no module my on the import path",
            id="serve: a model class that is not there",
        ),
        pytest.param(
            ["serve", "model.py", "--engine", "fake"],
            "either a model or an engine is served: leave out --engine, or 'model.py'",
            id="serve: a model class and an engine",
        ),
        pytest.param(
            ["serve", "model.py", "--engine-option", "slots=2"],
            "leave out --engine-option, or 'model.py'",
            id="serve: a model class and an option of an engine",
        ),
        pytest.param(
            ["serve", "--engine-option", "slots"],
            "--engine-option: expected KEY=VALUE, got 'slots'",
            id="serve: an option without a value",
        ),
        pytest.param(
            ["serve", "--port", "70000"],
            "streamkit: --port: input should be less than or equal to 65535, got '70000'\n",
            id="serve: bad port",
        ),
        pytest.param(
            ["serve", "--engine", "warp"],
            f"streamkit: unknown engine 'warp'; known: {', '.join(engine_names())}\n",
            id="serve: unknown engine",
        ),
        pytest.param(
            ["serve", "--engine-option", "warp=9"],
            "streamkit: engine fake has no option 'warp'; its options: ",
            id="serve: unknown option",
        ),
        pytest.param(
            ["serve", "--engine-option", "slots=none"],
            "option slots must be a whole number from 1 to 100000, got 'none'",
            id="serve: bad option",
        ),
        pytest.param(
            ["serve", "--config", "nowhere.toml"],
            "streamkit: --config nowhere.toml: No such file or directory\n",
            id="serve: no such file",
        ),
    ],
)
def test_wrong_usage_is_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(*arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


def test_the_file_can_be_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "streamkit.toml"
    file.write_text("port = -1")
    monkeypatch.setenv("STREAMKIT_CONFIG", str(file))

    assert status_of("serve") == 2
    assert f"{file}: port: input should be greater than or equal to 0" in capsys.readouterr().err


def test_a_parser_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    assert status_of("serve", "--port", "0", "--http", "httptools") == 2
    assert "--http httptools: httptools is not installed" in capsys.readouterr().err


def test_a_port_in_use_is_status_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        assert status_of("serve", "--port", port) == 1

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"streamkit: cannot listen on 127.0.0.1:{port}: address already in use; choose another "
        "--host or --port (--port 0 picks a free one)\n"
    )


def test_help_needs_no_web_framework() -> None:
    ended = run("--help", PYTHONPROFILEIMPORTTIME="1")

    assert ended.returncode == 0
    for heavy in ("starlette", "uvicorn", "pydantic", "prometheus_client", "httpx"):
        assert f" {heavy}\n" not in ended.stderr


def test_every_flag_is_a_setting() -> None:
    parser = _serve.make_parser()
    flags = {action.dest for action in parser._actions}

    assert flags - {"help", "config", "target"} == set(_serve.Settings.model_fields)
