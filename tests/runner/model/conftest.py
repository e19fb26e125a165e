"""Model classes run without HTTP, as a route runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from streamkit._core import CancelToken
from streamkit.runner._model import Answer, ModelOptions, ModelRunner, Stream, examine

Serve = Callable[..., ModelRunner]
Ask = Callable[..., Any]


@pytest.fixture
def serve() -> Serve:
    """Returns a runner over a model object that is loaded."""

    def make(model: object, **options: Any) -> ModelRunner:
        runner = ModelRunner("model", ModelOptions(**options))
        config = SimpleNamespace(predict_concurrency=1, streaming_read_timeout=None)
        loaded: Any = SimpleNamespace(
            model=model, methods=examine(model), config=config, name="model"
        )
        runner.attach(loaded)
        return runner

    return make


async def ask(
    runner: ModelRunner,
    inputs: object = None,
    *,
    token: CancelToken | None = None,
    request: object = None,
    request_id: str | None = None,
) -> Any:
    """One request from its arrival to its closed books; its value, or the list of its chunks."""
    with runner.accept(token=token, request_id=request_id) as call:
        call.admit()
        result = await call.predict(inputs, request)
        assert not isinstance(result, Answer)
        if isinstance(result, Stream):
            answer: Any = []

            async def read(chunks: AsyncIterator[Any]) -> None:
                answer.extend([chunk async for chunk in chunks])

            await result.items.drive(read)
        else:
            answer = result.value
            call.answering()
        await call.complete()
    return answer
