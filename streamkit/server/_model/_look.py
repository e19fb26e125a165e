"""The routes that run nothing: what the model is, and whether it is ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamkit import __version__
from streamkit._core import cancel_scope, current_token
from streamkit.errors import StreamCancelled
from streamkit.runner._model import LoadedModel, ModelRunner, dump_json
from streamkit.server._openai import describe_model, list_of, unix_now

from ._errors import answer_to, not_ready
from ._health import Health
from ._openapi import openapi
from ._schema import truss_schema

Ask = Callable[[], Awaitable[object]]


class Look:
    """These routes over one runner.

    Args:
        runner: Runs the model.
        run: The method that each path runs.
    """

    __slots__ = ("_health", "_run", "_runner", "_since")

    def __init__(self, runner: ModelRunner, run: Mapping[str, str]) -> None:
        self._runner = runner
        self._run = run
        self._health: Health | None = None
        self._since = unix_now()

    def attach(self, loaded: LoadedModel) -> None:
        """The model is loaded, and may have a word to say on its health."""
        method = loaded.methods.by_name.get("is_healthy")
        self._health = Health(method) if method else None

    def close(self) -> None:
        """Give up a question that the model has not answered."""
        if self._health is not None:
            self._health.close()

    def routes(self) -> list[Route]:
        """All of them. There is one model, so that any name will do, as on Truss."""
        asks: dict[str, Ask] = {
            "/": self.alive,
            "/v1/models": self.models,
            "/v1/models/{model_name}": self.ready,  # `GET …/model:predict` as well, as on Truss
            "/v1/models/{model_name}/loaded": self.loaded,
            "/v1/models/{model_name}/schema": self.schema,
            "/ping": self.loaded,
            "/openapi.json": self.openapi,
        }
        return [Route(path, _endpoint(ask)) for path, ask in asks.items()]

    async def alive(self) -> object:
        """The process works."""
        return True

    async def loaded(self) -> object:
        """The model is loaded, and takes requests."""
        if self._runner.not_ready() is not None:
            raise not_ready()
        return {}

    async def ready(self) -> object:
        """As :meth:`loaded`, and the model itself does not say that it is unhealthy."""
        await self.loaded()
        if self._health is not None and await self._health.check() is False:
            raise not_ready()
        return {}

    async def schema(self) -> object:
        """What ``predict`` takes and gives, as far as annotations say it."""
        loaded = self._runner.loaded
        if loaded is None:
            raise HTTPException(503, "Schema not available, please try again later.")
        schema = truss_schema(loaded.methods)
        if schema is None:
            raise HTTPException(404, "No schema found")
        return schema

    async def openapi(self) -> object:
        """What every path takes and gives, as an OpenAPI document."""
        loaded = self._runner.loaded
        if loaded is None:
            raise not_ready()
        return openapi(loaded.methods, self._run, title=loaded.name, version=__version__)

    async def models(self) -> object:
        """The one model, as OpenAI's clients list them."""
        return list_of(describe_model(self._runner.books.name, self._since))


def _endpoint(ask: Ask) -> Callable[[Request], Awaitable[Response]]:
    # A function for each path: metrics tell paths apart by it.
    async def endpoint(_: Request) -> Response:
        try:
            with cancel_scope(current_token()):
                # Not JSONResponse: a docstring of the model's may hold what UTF-8 cannot say.
                return Response(dump_json(await ask()), media_type="application/json")
        except StreamCancelled:
            raise
        except Exception as error:  # noqa: BLE001 - answered
            return answer_to(error)

    return endpoint
