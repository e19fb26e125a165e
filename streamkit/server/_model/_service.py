"""A model class behind its routes: loaded in the background, served as soon as it is there."""

from __future__ import annotations

import logging
import math

import anyio
from starlette.routing import BaseRoute

from streamkit._core import hold
from streamkit.runner._model import (
    LoadedModel,
    ModelConfig,
    ModelLoader,
    ModelOptions,
    ModelRunner,
    describe_failure,
    enter,
    find_target,
)
from streamkit.server._services import Pings
from streamkit.server.settings import Settings

from ._routes import ModelRoutes

logger = logging.getLogger("streamkit.model")


class ModelService:
    """One model class. The process becomes one for this model (``enter``): there can be one of it.

    Args:
        target: Where it is: ``package.module:Class``, a ``.py`` file, or a folder as Truss has it.
        settings: How it is served.

    Attributes:
        runner: Its requests and their books.
        pings: What its ``config.yaml`` says of them.

    Raises:
        TargetNotFound: There is no such class.
        ModelLoadFailed: Its ``config.yaml`` cannot be used.
    """

    def __init__(self, target: str, settings: Settings) -> None:
        self._target = find_target(target, settings.extensions)
        enter(self._target)
        self.runner: ModelRunner = ModelRunner(self._target.name, options_of(settings))
        self.pings: Pings = _pings_of(self._target.config)
        self._routes = ModelRoutes(self.runner, settings)
        self._loader = ModelLoader(self._target)
        self._tending: anyio.CancelScope | None = None
        self._settled = anyio.Event()
        self._failure: Exception | None = None

    def routes(self) -> list[BaseRoute]:
        """Those that run the model, and those that look at it."""
        return self._routes.all()

    async def start(self) -> None:
        """Begin to load the model."""
        hold(self._tend, name=f"loading {self._target}", limit=math.inf)

    async def wait_ready(self) -> None:
        """Return when it is loaded.

        Raises:
            ModelLoadFailed: It will not be.
        """
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure

    async def aclose(self) -> None:
        """Cut short what still runs, a load that goes on included. Idempotent."""
        if self._tending is not None:
            self._tending.cancel()
        self._routes.close()
        await self.runner.aclose()
        self._loader.close()

    async def _tend(self) -> None:
        """Load the model, and tell it whenever its environment has changed."""
        with anyio.CancelScope() as self._tending:
            if (loaded := await self._load()) is not None:
                await self._loader.watch_environment(loaded)

    async def _load(self) -> LoadedModel | None:
        try:
            loaded = await self._loader.load()
            self._routes.attach(loaded)
            self.runner.attach(loaded)
        except Exception as error:  # noqa: BLE001 - told by wait_ready()
            logger.error("%s", describe_failure(error))  # noqa: TRY400 - without our frames
            self._failure = error
            self.runner.fail(error)
            return None
        else:
            return loaded
        finally:
            self._settled.set()

    def __repr__(self) -> str:
        return f"<ModelService of {self._target} {self.runner!r}>"


def options_of(settings: Settings) -> ModelOptions:
    """What of the settings is about the model."""
    return ModelOptions(
        predict_concurrency=settings.predict_concurrency,
        read_timeout=settings.stream_read_timeout,
        first_chunk_timeout=settings.first_chunk_timeout,
        max_queued=settings.max_queued,
        max_wait=settings.max_wait,
        slots_cover=settings.slots_cover,
        interrupt_threads=settings.interrupt_threads == "on",
        request_timeout=settings.request_timeout,
        remembered=settings.remembered,
    )


def _pings_of(config: ModelConfig) -> Pings:
    default = Pings()
    return Pings(config.ping_interval or default.interval, config.ping_timeout or default.timeout)
