"""Models that are written on the spot, and an engine for each test: it is made in 10 ms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.engines import LlamaCppEngine

from . import tiny

ARGS = {"n_ctx": 16_384, "n_threads": 1, "n_threads_batch": 1}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token in a tenth of a millisecond."""
    return tiny.build(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt of some thousand tokens takes seconds."""
    return tiny.build(tmp_path_factory.mktemp("model") / "slow.gguf", layers=6, width=256)


@pytest.fixture
async def engine(model: Path) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine({"model_path": str(model), **ARGS})
    await engine.load()
    yield engine
    await engine.aclose()


@pytest.fixture
def llm(model: Path) -> Any:
    """llama-cpp-python by itself, for what it says without streamkit."""
    from llama_cpp import Llama  # noqa: PLC0415

    with_all = Llama(str(model), verbose=False, logits_all=True, **{**ARGS, "n_ctx": 2048})
    yield with_all
    with_all.close()
