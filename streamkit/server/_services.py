"""What an application serves: its runner, its routes, its start and its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from starlette.routing import BaseRoute, Route

from streamkit.engines import Engine
from streamkit.runner import EngineRunner, Runner

from ._generate import Generate
from ._openai import openai_routes
from .settings import Settings


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


class EngineService:
    """One engine behind ``POST /generate`` and OpenAI's routes."""

    __slots__ = ("_settings", "pings", "runner")

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.pings: Pings = Pings()
        self._settings = settings
        self.runner: EngineRunner = EngineRunner(
            engine,
            max_queued=settings.max_queued,
            request_timeout=settings.request_timeout,
            remembered=settings.remembered,
        )

    def routes(self) -> list[BaseRoute]:
        """The plain one, and OpenAI's."""
        generate = Route("/generate", Generate(self.runner, self._settings), methods=["POST"])
        return [generate, *openai_routes(self.runner, self._settings)]

    async def start(self) -> None:
        """An engine runs already."""

    async def wait_ready(self) -> None:
        """It is."""

    async def aclose(self) -> None:
        """Cut short what still runs, and close the engine."""
        await self.runner.aclose()

    def __repr__(self) -> str:
        return f"<EngineService {self.runner!r}>"
