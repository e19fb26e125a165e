"""Model classes that call `generate()` as most published ones do: it ends with its request."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from streamkit._core import CancelSource, Reason
from streamkit.errors import StreamCancelled
from streamkit.runner._model import ModelRunner, Stream, examine

LIMIT = 60.0  # seconds; it ends within a token
TOKENS = 4000  # of an answer that nobody waits for


class Model:
    """Its tokens are counted in its embedding, which each step runs through."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.thread: threading.Thread | None = None
        self.steps = 0
        self.began = threading.Event()

    def count(self, *_: object) -> None:
        self.steps += 1
        if self.steps > 3:
            self.began.set()

    def arguments(self, inputs: str) -> dict[str, Any]:
        ids = self.tokenizer(inputs, return_tensors="pt")["input_ids"]
        return {"input_ids": ids, "min_new_tokens": TOKENS, "max_new_tokens": TOKENS}


class Whole(Model):
    def predict(self, inputs: str) -> str:
        return self.tokenizer.decode(self.model.generate(**self.arguments(inputs))[0])


class Streams(Model):
    def predict(self, inputs: str) -> Iterator[str]:
        from transformers import TextIteratorStreamer  # noqa: PLC0415

        streamer = TextIteratorStreamer(self.tokenizer)
        arguments = {**self.arguments(inputs), "streamer": streamer}
        self.thread = threading.Thread(target=self.model.generate, kwargs=arguments)
        self.thread.start()

        def handed_on() -> Iterator[str]:
            yield from streamer

        return handed_on()


@pytest.fixture(params=[Whole, Streams])
async def served(
    request: Any, model: Any, tokenizer: Any
) -> AsyncIterator[tuple[Model, ModelRunner]]:
    from streamkit.runner._model._starting import notice_threads  # noqa: PLC0415

    notice_threads(request.path.parent)
    one = request.param(model, tokenizer)
    hook = model.get_input_embeddings().register_forward_hook(one.count)
    runner = ModelRunner("model")
    config = SimpleNamespace(predict_concurrency=1, streaming_read_timeout=None)
    loaded: Any = SimpleNamespace(model=one, methods=examine(one), config=config, name="model")
    runner.attach(loaded)
    yield one, runner
    hook.remove()


async def test_generate_ends_between_two_tokens_when_its_client_leaves(
    served: tuple[Model, ModelRunner],
) -> None:
    model, runner = served
    source = CancelSource()

    async def leave() -> None:
        await anyio.to_thread.run_sync(model.began.wait, LIMIT)
        source.cancel(Reason.CLIENT_DISCONNECT)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        with pytest.raises(StreamCancelled):
            await _answer(runner, source)
    with anyio.fail_after(LIMIT):
        await runner.in_flight.wait_idle()

    assert runner.slots.taken == 0
    if model.thread is not None:
        model.thread.join(1.0)  # it says that it has ended in its last line
        assert not model.thread.is_alive()
    assert model.steps < TOKENS / 2


async def _answer(runner: ModelRunner, source: CancelSource) -> None:
    with runner.accept(token=source.token) as call:
        call.admit()
        result = await call.predict("a b c", None)
        assert isinstance(result, Stream)
        async for _ in result.items:
            pass
