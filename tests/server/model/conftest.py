"""A model class behind its routes, in the test's own loop: no process, no socket, no loading."""

from __future__ import annotations

import json as json_format
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from streamkit.runner._model import LoadedModel, ModelRunner, examine
from streamkit.runner._model._config import default_config
from streamkit.server._model import ModelRoutes, options_of
from streamkit.server.app import Application
from streamkit.server.settings import Settings
from streamkit.testing import Exchange

PREDICT = "/v1/models/model:predict"


class AtOnce:
    """A service whose model is there from the start, or when the test says so."""

    def __init__(self, model: object, settings: Settings) -> None:
        self.model = model
        self.runner = ModelRunner("model", options_of(settings))
        self._routes = ModelRoutes(self.runner, settings)

    def load(self) -> None:
        loaded = LoadedModel(
            model=self.model, methods=examine(self.model), config=default_config(), name="model"
        )
        self._routes.attach(loaded)
        self.runner.attach(loaded)

    def routes(self) -> Any:
        return self._routes.all()

    async def start(self) -> None: ...

    async def wait_ready(self) -> None: ...

    async def aclose(self) -> None:
        self._routes.close()
        await self.runner.aclose()


Serve = Callable[..., Application]
Ask = Callable[..., Exchange]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Make an app over a model object, or a class without constructor arguments."""
    apps: list[Application] = []

    def make(model: object, *, loaded: bool = True, **settings: Any) -> Application:
        chosen = Settings(**settings)
        service = AtOnce(model() if isinstance(model, type) else model, chosen)
        if loaded:
            service.load()
        apps.append(Application(service, chosen))
        return apps[-1]

    yield make
    for app in apps:
        await app.service.aclose()


@pytest.fixture
def ask() -> Ask:
    """Make a request to a route of Truss, from JSON unless ``body`` says otherwise."""

    def make(
        app: Application,
        inputs: object = None,
        *,
        path: str = PREDICT,
        body: Any = None,
        accept: str | None = None,
        headers: dict[str, str] | None = None,
        **client: Any,
    ) -> Exchange:
        accepted = {} if accept is None else {"accept": accept}
        content = json_format.dumps(inputs).encode() if body is None else body
        return Exchange(
            app, path=path, body=content, headers={**accepted, **(headers or {})}, **client
        )

    return make
