"""`generate()` of transformers, as most published models call it, ends with its request."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from streamkit._core import CancelSource, Reason
from streamkit.errors import StreamCancelled
from streamkit.runner._model._generate import end_generate

from .conftest import Serve, ask

pytestmark = [pytest.mark.asyncio_only, pytest.mark.realtime]

LIMIT = 10.0  # real seconds


class StoppingCriteriaList(list[Callable[..., bool]]):
    def __call__(self, input_ids: object, scores: object) -> bool:
        return any(criterion(input_ids, scores) for criterion in self)


class Generates:
    """As the library's own: criteria are asked after each token, by keyword or in their place."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.tokens = 0

    def generate(
        self,
        inputs: object = None,
        generation_config: object = None,
        logits_processor: object = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        **options: object,
    ) -> int:
        criteria = StoppingCriteriaList(stopping_criteria or [])
        while not criteria(inputs, None):
            self.tokens += 1
            self.began.set()
            threading.Event().wait(0.001)
        return self.tokens


class AsksByItself(Generates):
    """Its author has given it a criterion, and none by keyword."""

    def predict(self, inputs: object) -> int:
        return self.generate("ids", None, None, StoppingCriteriaList([lambda *_: self.tokens > 3]))


class Predicts(Generates):
    def predict(self, inputs: object) -> int:
        return self.generate("ids", max_new_tokens=5)


class PredictsInItsPlace(Generates):
    def predict(self, inputs: object) -> int:
        return self.generate("ids", None, None, StoppingCriteriaList([lambda *_: False]))


@pytest.fixture(autouse=True)
def _imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Transformers is imported, by somebody; it is whole again afterwards."""
    module: Any = types.ModuleType("transformers.generation.utils")
    module.GenerationMixin = Generates
    module.StoppingCriteriaList = StoppingCriteriaList
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Generates, "generate", Generates.generate)
    return


@pytest.mark.parametrize("kind", [Predicts, PredictsInItsPlace])
async def test_generate_ends_between_two_tokens_when_its_client_leaves(
    serve: Serve, kind: type[Generates]
) -> None:
    model = kind()
    runner = serve(model)
    source = CancelSource()

    async with anyio.create_task_group() as tasks:

        async def leave() -> None:
            await anyio.to_thread.run_sync(model.began.wait, LIMIT)
            source.cancel(Reason.CLIENT_DISCONNECT)

        tasks.start_soon(leave)
        with pytest.raises(StreamCancelled):
            await ask(runner, token=source.token)
    with anyio.fail_after(LIMIT):
        await runner.in_flight.wait_idle()

    assert runner.slots.taken == 0


async def test_what_generate_was_given_still_counts(serve: Serve) -> None:
    assert await ask(serve(AsksByItself())) == 4


async def test_generate_of_nobodys_request_asks_nobody(serve: Serve) -> None:
    serve(Predicts())  # from now on it is another function

    assert Generates().generate("ids", stopping_criteria=StoppingCriteriaList([_ends])) == 0


def _ends(*_: object) -> bool:
    return True


def test_it_is_done_once_and_leaves_alone_what_takes_no_criteria(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end_generate()
    first = Generates.generate
    end_generate()
    assert Generates.generate is first

    monkeypatch.setattr(Generates, "generate", Generates.__init__)
    end_generate()
    assert Generates.generate is Generates.__init__
