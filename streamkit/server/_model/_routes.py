"""The paths of a model class: Truss's, SageMaker's, OpenAI's and our own."""

from __future__ import annotations

from typing import Final

from starlette.routing import BaseRoute, Route, WebSocketRoute

from streamkit.runner._model import LoadedModel, ModelRunner
from streamkit.server.settings import Settings

from ._endpoint import Endpoint
from ._inputs import PREDICT, ModelInputs
from ._look import Look
from ._socket import PATH as WEBSOCKET
from ._socket import ModelSocket

RUN: Final = {
    "/v1/models/{model_name}:predict": PREDICT,
    "/v1/models/{model_name}:predict_binary": PREDICT,
    "/predict": PREDICT,
    "/invocations": PREDICT,
    "/v1/chat/completions": "chat_completions",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "messages",
    "/v1/responses": "responses",
}
"""The method that each path runs; all are there whatever the model has."""


class ModelRoutes:
    """All routes of one model.

    Args:
        runner: Runs the model.
        settings: How.
    """

    __slots__ = ("_inputs", "_look", "_runner", "_settings")

    def __init__(self, runner: ModelRunner, settings: Settings) -> None:
        self._runner = runner
        self._settings = settings
        self._inputs = ModelInputs(models_only=settings.validate_inputs == "models")
        self._look = Look(runner, RUN)

    def attach(self, loaded: LoadedModel) -> None:
        """The model is loaded: read what its methods take."""
        self._inputs.attach(loaded)
        self._look.attach(loaded)

    def close(self) -> None:
        """Ask the model nothing any more."""
        self._look.close()

    def all(self) -> list[BaseRoute]:
        """Those that run the model, and those that look at it."""
        run = [
            Route(path, self._endpoint(method), methods=["POST"]) for path, method in RUN.items()
        ]
        websocket = WebSocketRoute(WEBSOCKET, ModelSocket(self._runner))
        return [*run, *self._look.routes(), websocket]  # a router tries them in this order

    def _endpoint(self, method: str) -> Endpoint:
        return Endpoint(self._runner, self._settings, self._inputs, method)
