"""One model for the session, tiny and random, made on the spot; and an engine on it for a test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from examples.transformers import tiny
from streamkit.engines import TransformersBatchEngine, TransformersEngine

# Before torch is imported. One thread: several wait for each other in turn, which takes for ever
# where the cores are shared.
os.environ.update(
    {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
)
CACHE = {"num_blocks": 512, "page_size": 32, "max_batch_tokens": 256}
ONE_SLOT = {**CACHE, "max_requests_per_batch": 1}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - takes seconds

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
async def engine(model: Any, tokenizer: Any) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(model, tokenizer)
    yield engine
    await engine.aclose()


@pytest.fixture
async def batch_engine(model: Any, tokenizer: Any) -> AsyncIterator[TransformersBatchEngine]:
    engine = TransformersBatchEngine(model, tokenizer, settings=CACHE)
    await engine.load()
    yield engine
    await engine.aclose()
