"""One engine for the session, on a tiny model that is made on the spot."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from examples.vllm import tiny
from streamkit.engines import VLLMEngine

os.environ.update(tiny.ENVIRONMENT)  # before vLLM is imported
# The search for leaks ends with the death of the engine: nobody can use it afterwards.
LAST_WITH_THE_ENGINE = "test_conformance.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (order_of(item), item.path.name == LAST_WITH_THE_ENGINE))


def order_of(item: pytest.Item) -> int:
    """First what needs no engine, then the one in here, then servers in their own processes."""
    names: list[str] = getattr(item, "fixturenames", [])
    return 0 if item.path.name == "test_contract.py" else 1 if "llm" in names else 2


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
async def llm(model: Path) -> AsyncIterator[Any]:
    """One slot; it is made by ``VLLMEngine.load()`` and ended by its ``aclose()``."""
    owner = VLLMEngine({"model": str(model), **tiny.ENGINE_ARGS, "max_num_seqs": 1})
    await owner.load()
    yield owner._llm
    await owner.aclose()


@pytest.fixture
async def engine(llm: Any) -> AsyncIterator[VLLMEngine]:
    """The adapter; its books begin with the test."""
    adapter = VLLMEngine(llm)
    yield adapter
    await adapter.aclose()
