"""Secrets: found in Truss's order, a mapping in every respect, and never shown."""

from pathlib import Path

import pytest

from streamkit.runner._model._secrets import Secrets

pytestmark = pytest.mark.blocks_the_loop  # it reads files; models do so in threads


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    return folder


def test_a_mounted_file_wins_over_the_variable_and_that_over_the_config(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = Secrets({"token": "of the config"}, folder=mounted)
    assert secrets["token"] == "of the config"

    monkeypatch.setenv("TRUSS_SECRET_token", "of the variable")
    assert secrets["token"] == "of the variable"

    (mounted / "token").write_text("of the file\n")
    assert secrets["token"] == "of the file\n", "as it is in the file, line end included"


def test_get_returns_its_default_for_what_is_not_there(mounted: Path) -> None:
    # Differs from Truss, where get raises as an index does.
    secrets = Secrets({"empty": "", "unset": None}, folder=mounted)

    for name in ("empty", "unset", "unknown"):
        assert secrets.get(name, "a default") == "a default"
        assert name not in secrets
        with pytest.raises(KeyError):
            secrets[name]


def test_it_is_a_mapping_of_the_secrets_that_have_a_value(mounted: Path) -> None:
    # Differs from Truss, where it cannot be iterated over.
    (mounted / "b").write_text("2")
    secrets = Secrets({"a": "1", "b": None, "c": None}, folder=mounted)

    assert dict(secrets) == {"a": "1", "b": "2"}
    assert len(secrets) == 2
    assert bool(secrets)
    assert {**secrets} == {"a": "1", "b": "2"}


def test_what_the_config_does_not_declare_is_not_there(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUSS_SECRET_token", "value")

    with pytest.raises(KeyError) as caught:
        Secrets({}, folder=mounted)["token"]

    assert str(caught.value) == (
        "Secret 'token' not found. Add it to the 'secrets' section of config.yaml"
    )


def test_where_no_config_can_declare_one_every_secret_is_there(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUSS_SECRET_token", "value")
    (mounted / "key").write_text("value")

    secrets = Secrets({}, open=True, folder=mounted)

    assert secrets["token"] == secrets["key"] == "value"
    (mounted / "..data").mkdir()  # as Kubernetes does
    assert dict(secrets) == {"key": "value", "token": "value"}


def test_a_secret_without_a_value_is_told_with_where_to_put_it(mounted: Path) -> None:
    with pytest.raises(KeyError) as caught:
        Secrets({"token": None}, folder=mounted)["token"]

    assert str(caught.value) == (
        f"Secret 'token' not found. Put its value into the file {mounted / 'token'}, "
        "or into the environment variable TRUSS_SECRET_token"
    )


def test_a_name_is_no_path(mounted: Path) -> None:
    (mounted.parent / "outside").write_text("value")

    assert Secrets({}, open=True, folder=mounted).get("../outside") is None
    assert Secrets({}, open=True, folder=mounted).get(str(mounted.parent / "outside")) is None


def test_no_value_is_ever_shown(mounted: Path) -> None:
    secrets = Secrets({"token": "hunter2"}, folder=mounted)

    assert repr(secrets) == str(secrets) == f"{secrets}" == "<Secrets token>"


def test_published_models_read_the_values_of_the_config_under_a_private_name() -> None:
    assert Secrets({"token": "value"})._base_secrets == {"token": "value"}
