"""config.yaml: what is used of it, what the model sees of it, what is said of its mistakes."""

from pathlib import Path

import pytest

from streamkit.errors import ModelLoadFailed
from streamkit.runner._model._config import ModelConfig, default_config, read_config

pytestmark = pytest.mark.blocks_the_loop  # it reads files; nobody calls it on a loop


def read(folder: Path, text: str) -> ModelConfig:
    file = folder / "config.yaml"
    file.write_text(text)
    return read_config(file)


def told(folder: Path, text: str) -> str:
    with pytest.raises(ModelLoadFailed) as caught:
        read(folder, text)
    assert str(folder / "config.yaml") in str(caught.value)
    return str(caught.value)


def test_what_the_runner_uses(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        model_name: Summaries
        model_class_name: Summary
        model_class_filename: summary.py
        model_module_dir: src
        data_dir: files
        bundled_packages_dir: vendor
        external_package_dirs: [../shared]
        environment_variables: {LEVEL: 3, FAST: true, NAME: x}
        secrets: {token: null, key: fallback}
        runtime:
          predict_concurrency: 8
          streaming_read_timeout: 120
          enable_debug_logs: true
          transport: {kind: websocket, ping_interval_seconds: 5, ping_timeout_seconds: 10.5}
        """,
    )

    assert config.model_name == "Summaries"
    assert config.model_class_name == "Summary"
    assert (config.model_module_dir, config.model_class_filename) == ("src", "summary.py")
    assert config.data_dir == "files"
    assert config.package_dirs == ("vendor", "../shared")
    assert config.environment_variables == {"LEVEL": "3", "FAST": "true", "NAME": "x"}
    assert config.secrets == {"token": None, "key": "fallback"}
    assert (config.predict_concurrency, config.streaming_read_timeout) == (8, 120.0)
    assert (config.ping_interval, config.ping_timeout) == (5.0, 10.5)
    assert config.websocket
    assert config.debug_logs


@pytest.mark.parametrize("text", ["", "# nothing", "runtime:\nsecrets:\nmodel_name:", "{}"])
def test_what_is_not_said_has_trusss_defaults(tmp_path: Path, text: str) -> None:
    config = read(tmp_path, text)

    assert config == default_config()
    assert (config.model_class_name, config.model_class_filename) == ("Model", "model.py")
    assert (config.model_module_dir, config.package_dirs) == ("model", ("packages",))
    assert config.predict_concurrency == 1
    assert config.streaming_read_timeout is None, "not said: the settings decide"


def test_the_model_sees_every_default_of_truss_and_what_nobody_knows(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        "{runtime: {predict_concurrency: 2}, model_metadata: {repo: r}, mine: {a: 1}}",
    )

    assert config.raw["runtime"]["predict_concurrency"] == 2
    assert config.raw["runtime"]["streaming_read_timeout"] == 60
    assert config.raw["model_metadata"] == {"repo": "r"}
    assert config.raw["resources"]["use_gpu"] is False
    assert config.raw["requirements"] == []
    assert config.raw["mine"] == {"a": 1}


def test_one_model_cannot_change_the_defaults_of_the_next(tmp_path: Path) -> None:
    read(tmp_path, "").raw["runtime"]["predict_concurrency"] = 7

    assert read(tmp_path, "").raw["runtime"]["predict_concurrency"] == 1


def test_the_old_way_to_declare_a_websocket_still_counts(tmp_path: Path) -> None:
    assert read(tmp_path, "runtime: {is_websocket_endpoint: true}").websocket
    assert not read(tmp_path, "").websocket


@pytest.mark.parametrize(
    "text", ["{is_websocket_endpoint: true}", "{transport: {kind: websocket}}"]
)
def test_a_model_reads_both_ways_to_declare_a_websocket_as_truss_writes_them(
    tmp_path: Path, text: str
) -> None:
    runtime = read(tmp_path, f"runtime: {text}").raw["runtime"]

    assert runtime["is_websocket_endpoint"] is True
    assert runtime["transport"] == {
        "kind": "websocket",
        "ping_interval_seconds": None,
        "ping_timeout_seconds": None,
    }
    assert runtime["request_backpressure"] == {"policy": None}


@pytest.mark.parametrize(
    ("text", "uses_gpu"),
    [("{accelerator: A10G}", True), ("{use_gpu: true}", False), ("", False)],
)
def test_whether_there_is_a_gpu_follows_from_the_accelerator_as_on_truss(
    tmp_path: Path, text: str, uses_gpu: bool
) -> None:
    assert read(tmp_path, f"resources: {text}").raw["resources"]["use_gpu"] is uses_gpu


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "runtime: {predict_concurrency: many}",
            "runtime.predict_concurrency: input should be a valid integer, unable to parse",
        ),
        (
            "runtime: {predict_concurrency: 0}",
            "runtime.predict_concurrency: input should be greater than or equal to 1, got 0",
        ),
        (
            "runtime: {predict_concurrency: true}",
            "runtime.predict_concurrency: input should be a number, got True",
        ),
        (
            "runtime: {streaming_read_timeout: -1}",
            "runtime.streaming_read_timeout: input should be greater than 0, got -1",
        ),
        (
            "runtime: {transport: {kind: carrier pigeon}}",
            "runtime.transport.kind: input should be 'http', 'websocket' or 'grpc', got 'carrier",
        ),
        (
            "external_package_dirs: ../shared",
            "external_package_dirs: input should be a valid list, got '../shared'",
        ),
        ("model_class_name: [Model]", "model_class_name: input should be a valid"),
        ("runtime: [1]", "runtime: input should be KEY: VALUE lines, got [1]"),
        ("secrets: [a]", "secrets: input should be KEY: VALUE lines, got a list"),
        ("- a\n- b", "expected KEY: VALUE lines at the top, got a list"),
        ("a: [", "is not valid YAML: while parsing a flow node"),
        ("a: !!python/object:os.system {}", "is not valid YAML: could not determine"),
        ("docker_server: {start_command: x}", "docker_server starts a server of its"),
    ],
)
def test_a_mistake_is_told_with_file_key_value_and_what_is_expected(
    tmp_path: Path, text: str, message: str
) -> None:
    assert message in told(tmp_path, text)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = told(tmp_path, "{data_dir: 5, runtime: {predict_concurrency: x}}")

    assert len(text.splitlines()) == 2


def test_a_file_that_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    with pytest.raises(ModelLoadFailed, match="cannot be read: No such file or directory"):
        read_config(file)

    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ModelLoadFailed, match="is not valid YAML"):
        read_config(file)


def test_no_value_of_a_secret_or_variable_is_shown(tmp_path: Path) -> None:
    text = told(
        tmp_path, "{secrets: {token: {nested: hunter2}}, runtime: {predict_concurrency: x}}"
    )
    config = read(tmp_path, "{secrets: {token: hunter2}, environment_variables: {KEY: hunter2}}")

    assert "secrets.token: input should be a valid string, got a dict" in text
    assert "hunter2" not in text
    assert "hunter2" not in repr(config)


def test_a_misspelt_key_is_warned_of_and_others_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(tmp_path, "{runtime: {predict_concurency: 4}, model_nmae: x, mine: 1, paramiko: 2}")

    assert len(caplog.records) == 2
    assert "nobody knows the key model_nmae; did you mean model_name?" in caplog.text
    assert "runtime.predict_concurency; did you mean runtime.predict_concurrency?" in caplog.text
