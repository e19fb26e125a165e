"""What an application serves: its runner, its routes, its start and its end."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import anyio
from starlette.routing import BaseRoute, Route

from streamkit._core import hold, now
from streamkit.engines import Engine, Loads
from streamkit.runner import EngineRunner, Runner

from ._generate import Generate
from ._openai import openai_routes
from .settings import Settings

logger = logging.getLogger("streamkit.server")


class Pings(NamedTuple):
    """Seconds between two pings of a websocket, and that an answer may take: uvicorn's defaults."""

    interval: float = 20.0
    timeout: float = 20.0


class Service(Protocol):
    """An engine, or a model class."""

    @property
    def pings(self) -> Pings:
        """How the peer of a websocket is asked whether it is there."""
        ...

    @property
    def runner(self) -> Runner:
        """Its requests and their books."""
        ...

    def routes(self) -> Sequence[BaseRoute]:
        """The routes that run it; each path has its own endpoint, by which metrics know it."""
        ...

    async def start(self) -> None:
        """The server is about to answer. What takes long goes on in the background."""

    async def wait_ready(self) -> None:
        """Return when it can do its work.

        Raises:
            Exception: It never will; the message says why.
        """

    async def aclose(self) -> None:
        """Cut short what still runs, and let go of everything. Idempotent."""


_MISTAKES: Final = (OSError, ValueError)


class EngineService:
    """One engine behind ``POST /generate`` and OpenAI's routes."""

    __slots__ = ("_failure", "_loaded", "_loading", "_settings", "pings", "runner")

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.pings: Pings = Pings()
        self._settings = settings
        self.runner: EngineRunner = EngineRunner(
            engine,
            max_queued=settings.max_queued,
            request_timeout=settings.request_timeout,
            remembered=settings.remembered,
        )
        self._loading: anyio.CancelScope | None = None
        self._loaded = anyio.Event()
        self._failure: Exception | None = None

    def routes(self) -> list[BaseRoute]:
        """The plain one, and OpenAI's."""
        generate = Route("/generate", Generate(self.runner, self._settings), methods=["POST"])
        return [generate, *openai_routes(self.runner, self._settings)]

    async def start(self) -> None:
        """Begin to load the engine, if it has to be loaded."""
        engine = self.runner.engine
        if not isinstance(engine, Loads):
            self._loaded.set()
            return
        self.runner.admission.close(f"engine {engine.name} is loading")
        hold(lambda: self._load(engine), name=f"loading engine {engine.name}", limit=math.inf)

    async def wait_ready(self) -> None:
        """Return when it is loaded.

        Raises:
            Exception: It will not be.
        """
        await self._loaded.wait()
        if self._failure is not None:
            raise self._failure

    async def aclose(self) -> None:
        """Cut short what still runs, a load that goes on included, and close the engine."""
        if self._loading is not None:
            self._loading.cancel()
        await self.runner.aclose()

    async def _load(self, engine: Loads) -> None:
        name, began = self.runner.engine.name, now()
        logger.info("loading engine %s", name)
        try:
            with anyio.CancelScope() as self._loading:
                await engine.load()
                logger.info("loaded engine %s in %.3g s", name, now() - began)
                if not self.runner.draining:
                    self.runner.admission.open()
        except Exception as error:
            # These two are what engines raise for a model that is not there, or is none: of these
            # the message says more than a page of their own frames.
            frames = not isinstance(error, _MISTAKES) or logger.isEnabledFor(logging.DEBUG)
            logger.error("engine %s did not load: %s", name, error, exc_info=frames)  # noqa: TRY400
            self._failure = error
            self.runner.admission.close(f"engine {name} did not load")
        finally:
            self._loaded.set()

    def __repr__(self) -> str:
        return f"<EngineService {self.runner!r}>"
