"""A setting has one meaning in three spellings; a wrong one is named with where it came from."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from streamkit.server.settings import Settings, SettingsError, load


def write(folder: Path, text: str) -> Path:
    file = folder / "streamkit.toml"
    file.write_text(text)
    return file


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "port = 1\nhost = 'file'\nmax_queued = 3\n")
    environment = {"STREAMKIT_PORT": "2", "STREAMKIT_HOST": "variable"}

    settings = load({"port": "3"}, environment, file)

    assert (settings.port, settings.host, settings.max_queued) == (3, "variable", 3)
    assert settings.drain_grace == Settings().drain_grace


def test_engine_options_of_all_sources_are_taken_together(tmp_path: Path) -> None:
    file = write(tmp_path, "[engine_options]\nslots = 1\nkill = true\nstep_ms = 2.5\n")
    environment = {"STREAMKIT_ENGINE_OPTIONS": "slots=2, seed=2"}

    settings = load({"engine_options": {"slots": "3"}}, environment, file)

    assert settings.engine_options == {
        "slots": "3",
        "kill": "true",
        "step_ms": "2.5",
        "seed": "2",
    }


def test_what_is_optional_can_be_switched_off(tmp_path: Path) -> None:
    file = write(tmp_path, "heartbeat = 'off'\n")

    settings = load({"tcp_send_buffer": "off"}, {"STREAMKIT_TCP_NOTSENT_LOWAT": "off"}, file)

    assert settings.heartbeat is settings.tcp_send_buffer is settings.tcp_notsent_lowat is None


def test_an_operator_key_is_what_can_be_sent_and_not_guessed() -> None:
    good = "0123456789abcdef-._~+/=="

    assert load({}, {"STREAMKIT_OPERATOR_KEY": good}).operator_key == SecretStr(good)
    assert load({"operator_key": "off"}, {"STREAMKIT_OPERATOR_KEY": good}).operator_key is None
    for bad in ("", "too-short", "0123456789abcdef ghi", "0123456789abcdefä", good + "\n"):
        with pytest.raises(SettingsError) as error:
            load({}, {"STREAMKIT_OPERATOR_KEY": bad})
        assert str(error.value) == (
            "STREAMKIT_OPERATOR_KEY: input should be 16 or more letters, digits or -._~+/"
        )


def test_what_may_hold_a_secret_is_not_repeated_in_an_error() -> None:
    with pytest.raises(SettingsError) as error:
        load({}, {"STREAMKIT_ENGINE_OPTIONS": "api_key=s3cret,slots"})

    assert str(error.value) == "STREAMKIT_ENGINE_OPTIONS: input should be KEY=VALUE,KEY=VALUE"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"port": "70000"}, "--port: input should be less than or equal to 65535, got '70000'"),
        ({"port": "-1"}, "--port: input should be greater than or equal to 0, got '-1'"),
        ({"port": "http"}, "--port: input should be a valid integer"),
        ({"port": "1.5"}, "--port: input should be a valid integer"),
        ({"host": ""}, "--host: string should have at least 1 character"),
        ({"http": "nginx"}, "--http: input should be 'auto', 'h11' or 'httptools', got 'nginx'"),
        ({"max_queued": "-1"}, "--max-queued: input should be greater than or equal to 0"),
        ({"read_timeout": "0"}, "--read-timeout: input should be greater than 0, got '0'"),
        ({"read_timeout": "nan"}, "--read-timeout: input should be"),
        ({"read_timeout": "1e999"}, "--read-timeout: input should be a finite number"),
        ({"read_timeout": "off"}, "--read-timeout: input should be a valid number"),
        ({"heartbeat": "never"}, "--heartbeat: input should be a valid number"),
        ({"loss_bound": "2"}, "--loss-bound: input should be greater than or equal to 3"),
        ({"loss_bound": "off"}, "--loss-bound: input should be a valid number"),
    ],
)
def test_a_wrong_flag_is_named(flags: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(flags, {})

    assert str(error.value).startswith(said)


def test_a_wrong_variable_is_named() -> None:
    environment = {"STREAMKIT_PORT": "tcp://10.0.0.1:8000"}  # as Kubernetes sets it for a service

    with pytest.raises(SettingsError, match=r"STREAMKIT_PORT: input should be a valid integer"):
        load({}, environment)


def test_a_wrong_variable_does_not_matter_where_a_flag_overrides_it() -> None:
    assert load({"port": "1"}, {"STREAMKIT_PORT": "x"}).port == 1


def test_variables_that_are_not_ours_are_left_alone() -> None:
    assert load({}, {"STREAMKIT_SERVICE_HOST": "10.0.0.1"}) == Settings()


def test_every_wrong_value_has_its_line() -> None:
    with pytest.raises(SettingsError) as error:
        load({"port": "x"}, {"STREAMKIT_HEARTBEAT": "-1"})

    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [
        "--port",
        "STREAMKIT_HEARTBEAT",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 70000", "streamkit.toml: port: input should be less than or equal to 65535"),
        ("port = true", "streamkit.toml: port: input should be a number or text, got True"),
        ("port = ", "streamkit.toml is not valid TOML: Invalid value (at end of document)"),
        ("prot = 1", "streamkit.toml: there is no setting 'prot'; did you mean port?"),
        ("xyzzy = 1", "streamkit.toml: there is no setting 'xyzzy'"),
        ("[server]\nport = 1", "streamkit.toml: there is no setting 'server'"),
        ("heartbeat = nan", "streamkit.toml: heartbeat: input should be"),
        ("engine_options = 3", "streamkit.toml: engine_options: input should be a valid dict"),
        ("engine_options = 'slots'", "streamkit.toml: engine_options: input should be KEY=VALUE"),
        ("[engine_options]\nslots = [1]", "streamkit.toml: engine_options: input should be a"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        load({}, {}, write(tmp_path, text))

    assert said in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "nowhere.toml"

    with pytest.raises(SettingsError, match=r"--config .*nowhere.toml: No such file or directory"):
        load({}, {}, file)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "streamkit.toml"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(SettingsError, match="not valid TOML"):
        load({}, {}, file)
