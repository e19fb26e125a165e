"""How Truss's server makes and loads a model, row by row, as a folder served here sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.serving import LIMIT, serving

pytestmark = pytest.mark.realtime

FOLDER = Path(__file__).with_name("models") / "loaded"
SEEN = {
    "every keyword is given to who takes any": (
        "given",
        ["config", "data_dir", "environment", "lazy_data_resolver", "secrets", "trt_llm"],
    ),
    "a failed load is tried again, and no file says where it is": (
        "events",
        ["made"] + ["load"] * 2,
    ),
    "the config has each default": ("config", 1),
    "the data are in place": ("data", ["data", "weights"]),
    "without that file there is no environment": ("environment", None),
    "an extension gives its arguments": ("engine", {"engine": "Loaded loaded"}),
    "a secret is looked up in the variables, then in the config": (
        "secrets",
        [
            "from the variable",
            "from the config",
            "a default",  # Truss: SecretNotFound
            None,  # Truss: SecretNotFound
            ["configured", "missing", "mounted"],
        ],
    ),
    "the config's variables are set": ("variable", "true"),
    "packages and siblings are imported": (  # Truss: not relatively
        "imports",
        ["borrowed", "help", "help", "help", "model.model"],
    ),
    "the folder is the working directory": ("at", "loaded"),
    "a generic model validates": ("inputs", [1, 2]),  # Truss: cannot be defined
    "a class of the file is pickled": ("pickled", "Counts"),  # Truss: cannot be
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        serving(str(FOLDER)) as served,
        httpx.Client(base_url=served.url, timeout=LIMIT) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def seen(client: httpx.Client) -> dict[str, Any]:
    return client.post("/v1/models/model:predict", json={"inside": [1, "2"]}).json()


@pytest.mark.parametrize("row", SEEN)
def test_what_a_model_sees_when_it_is_made(seen: dict[str, Any], row: str) -> None:
    key, value = SEEN[row]

    assert seen[key] == value


def test_a_process_of_the_models_finds_the_file_by_its_name(client: httpx.Client) -> None:
    answer = client.post("/v1/completions", json=[1, 2, 3])

    assert (answer.status_code, answer.json()) == (200, 3)


def test_a_stream_that_is_silent_breaks_and_its_work_is_over(client: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):  # Truss: and the work goes on
        client.post("/v1/chat/completions", headers={"x-request-id": "silent"})

    account = client.get("/v1/requests/silent").json()
    assert (account["phase"], account["proof"]) == ("cancelled", "joined")
