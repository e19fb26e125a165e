"""Model classes written in a test, run without HTTP."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from streamkit.runner._model import ModelOptions, ModelRunner, examine

Make = Callable[..., ModelRunner]


@pytest.fixture
def serve() -> Make:
    """A runner over a model object, loaded."""

    def make(model: object, **options: Any) -> ModelRunner:
        runner = ModelRunner("model", ModelOptions(**options))
        config = SimpleNamespace(predict_concurrency=1, streaming_read_timeout=None)
        loaded: Any = SimpleNamespace(
            model=model, methods=examine(model), config=config, name="model"
        )
        runner.attach(loaded)
        return runner

    return make
