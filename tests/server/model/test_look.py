"""The routes that run nothing: alive, ready, loaded, schema, models, SageMaker's ping."""

import json
from asyncio import CancelledError

import anyio
import pytest

from streamkit.testing import Exchange


class Echo:
    async def predict(self, inputs):
        return inputs


async def get(app, path: str) -> Exchange:
    return await Exchange(app, method="GET", path=path).run()


def not_ready(exchange: Exchange) -> bool:
    assert exchange.status in {200, 503}
    if exchange.status == 200:
        assert exchange.text == "{}"
        return False
    assert json.loads(exchange.data) == {"error": "Model with name model is not ready."}
    assert exchange.headers_received["x-baseten-error-code"] == "600"
    assert exchange.headers_received["x-baseten-error-source"] == "04"
    return True


LOADED = ["/v1/models/model/loaded", "/ping"]
READY = ["/v1/models/model", "/v1/models/any.name", "/v1/models/model:predict"]


async def test_the_root_says_that_the_process_is_alive(serve) -> None:
    assert (await get(serve(Echo, loaded=False), "/")).text == "true"


@pytest.mark.parametrize("path", [*LOADED, *READY])
async def test_a_model_is_ready_once_it_is_loaded(serve, path) -> None:
    app = serve(Echo, loaded=False)

    before = not_ready(await get(app, path))
    app.service.load()
    after = not_ready(await get(app, path))

    assert (before, after) == (True, False)


@pytest.mark.parametrize("path", [*LOADED, *READY])
async def test_a_model_is_not_ready_any_more_while_the_server_drains(serve, path) -> None:
    app = serve(Echo)

    await app.runner.drain(0)

    assert not_ready(await get(app, path))


class Health:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def predict(self, inputs):
        return inputs

    async def is_healthy(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class SyncHealth(Health):
    def is_healthy(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("kind", [Health, SyncHealth])
@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (True, True),
        (1, True),
        (["reason"], True),
        (None, True),
        (False, False),
        (0, False),
        ([], False),
        (RuntimeError("no GPU"), False),
        (SystemExit(3), False),
        (CancelledError(), False),
    ],
)
async def test_a_model_has_its_word_in_whether_it_is_ready(
    serve, ask, kind, answer, healthy
) -> None:
    app = serve(kind(answer))

    assert not not_ready(await get(app, LOADED[0]))
    assert not_ready(await get(app, READY[0])) is not healthy
    assert (await ask(app, 1).run()).status == 200  # predict answers all the same, as on Truss


async def test_a_model_that_is_loading_is_not_asked(serve) -> None:
    app = serve(Health(True), loaded=False)

    assert not_ready(await get(app, READY[0]))


async def test_many_probes_share_one_question(serve) -> None:
    class Hangs:
        asked = 0

        async def predict(self, inputs):
            return inputs

        async def is_healthy(self):
            self.asked += 1
            await anyio.sleep(10)
            return True

    app = serve(Hangs)
    gone = [Exchange(app, method="GET", path=READY[0], leaves_after_seconds=n) for n in range(1, 4)]
    async with anyio.create_task_group() as tasks:
        for probe in gone:
            tasks.start_soon(probe.run)
        last = await get(app, READY[0])

    assert (last.status, last.ended_at) == (200, pytest.approx(10))
    assert [probe.ended_at for probe in gone] == [pytest.approx(n) for n in range(1, 4)]
    assert app.service.model.asked == 1
    assert not not_ready(await get(app, READY[0]))
    assert app.service.model.asked == 2


async def test_the_model_is_listed_as_openai_lists_models(serve) -> None:
    listed = json.loads((await get(serve(Echo), "/v1/models")).data)

    assert listed["object"] == "list"
    [model] = listed["data"]
    assert (model["id"], model["object"]) == ("model", "model")
    assert isinstance(model["created"], int)


async def test_metrics_know_each_path_by_its_own_name(serve, ask) -> None:
    app = serve(Echo)
    paths = ["/predict", "/invocations", "/v1/models/model:predict", "/v1/models/m:predict_binary"]
    for path in paths:
        await ask(app, path=path).run()
    await get(app, "/ping")
    await get(app, "/v1/models/model/loaded")

    metrics = (await get(app, "/metrics")).text

    for path in [*app.paths[:1], "/predict", "/invocations", "/ping"]:
        assert path in app.paths
    for route in (
        "/predict",
        "/invocations",
        "/v1/models/{model_name}:predict",
        "/v1/models/{model_name}:predict_binary",
        "/ping",
        "/v1/models/{model_name}/loaded",
    ):
        assert f'route="{route}"' in metrics


async def test_metrics_are_where_scrapers_of_truss_look(serve) -> None:
    exchange = await get(serve(Echo), "/metrics/")

    assert exchange.status == 200
    assert "streamkit_" in exchange.text
