"""The ASGI app of a served engine or model, from the outermost layer to the routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from streamkit.asgi import CancellationMiddleware
from streamkit.engines import Engine, build
from streamkit.runner import Runner

from ._hosts import Hosts
from ._inspect import Inspect
from ._keys import Keys, OwnedVisit
from ._metrics import Metrics
from ._paths import Paths
from ._problems import Problems
from ._services import EngineService, Service
from ._visit import FORMS, VISIT_KEY, Front, Visit, log_visit
from .settings import Settings

__all__ = ["Application", "build_service", "create_app"]


class Application:
    """Serves one engine, or one model class; any ASGI server will do.

    The end of its lifespan cancels what still runs, has it proved stopped, and closes the engine.

    Args:
        service: What is served.
        settings: How; what concerns sockets and the process is ignored here.
        hears_signals: Whether SIGTERM and SIGINT start the ``drain_grace``, beside what the server
            does on them. A process that drains by itself (``runner.drain()``) says no.

    Attributes:
        service: What is served.
        runner: The requests and their books.
        metrics: What ``GET /metrics`` shows.
    """

    __slots__ = ("_app", "_log", "_paths", "_routes", "metrics", "runner", "service")

    def __init__(self, service: Service, settings: Settings, *, hears_signals: bool = True) -> None:
        self.service: Service = service
        self.runner: Runner = service.runner
        hosts = settings.allowed_hosts
        routed: ASGIApp = self._route if hosts is None else Hosts(self._route, hosts)
        owner = CancellationMiddleware(
            Problems(routed, lambda: self.paths),
            loss_bound=settings.loss_bound,
            write_stall=settings.write_stall,
            drain_grace=settings.drain_grace if hears_signals else None,
        )
        self.metrics: Metrics = Metrics(self.runner, lambda: owner.sweeper.blocked_for)
        self._log = log_visit(FORMS[settings.access_log]) if settings.access_log != "off" else None
        keys, visit = _with_owners(self.runner, settings)
        inspect = Inspect(self.runner, self.metrics, keys)
        routes: list[BaseRoute] = [*service.routes(), *inspect.routes()]
        self._paths: dict[object, str] = {
            route.endpoint: route.path_format
            for route in routes
            if isinstance(route, Route | WebSocketRoute)
        }
        self._routes = Paths(routes, self._lifespan)
        self._app: ASGIApp = Front(owner, self.runner.in_flight, self._visited, visit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await self._app(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # for Starlette: an unknown path is then an error that we can answer
        try:
            await self._routes(scope, receive, send)
        finally:
            if scope["type"] != "lifespan":
                visit: Visit = scope[VISIT_KEY]
                visit.route = self._paths.get(scope.get("endpoint"), visit.route)

    @property
    def paths(self) -> list[str]:
        """Every path that it answers, as the routes have it."""
        return list(self._paths.values())

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncGenerator[None]:
        await self.service.start()
        try:
            yield
        finally:
            await self.service.aclose()  # noqa: ASYNC102 - it shields and limits itself

    def _visited(self, visit: Visit) -> None:
        self.metrics.visited(visit)
        if self._log is not None:
            self._log(visit)

    def __repr__(self) -> str:
        return f"<Application {self.runner!r}>"


def _with_owners(runner: Runner, settings: Settings) -> tuple[Keys | None, Callable[..., Visit]]:
    """Whose requests are whose, if an operator key is set; else nothing is paid for it."""
    if settings.operator_key is None:
        return None, Visit
    owned = runner.give_owners()
    return Keys(settings.operator_key.get_secret_value(), owned), partial(OwnedVisit, owned)


def create_app(
    settings: Settings | None = None, *, engine: Engine | None = None, target: str | None = None
) -> Application:
    """Return the app that ``streamkit serve`` runs, for a server of your own.

    Args:
        settings: How it behaves; None for the defaults.
        engine: What is served; None builds the one that the settings name.
        target: A model class in the engine's place: ``package.module:Class``, a ``.py`` file, or a
            folder in Truss's layout. It is loaded when the app starts.

    Raises:
        ValueError: There is no such engine, or it has no such option.
        TargetNotFound: There is no such model.
        ModelLoadFailed: Its ``config.yaml`` cannot be used.
    """
    settings = settings or Settings()
    return Application(build_service(settings, target, engine), settings)


def build_service(
    settings: Settings, target: str | None = None, engine: Engine | None = None
) -> Service:
    """Return what is served; raises as :func:`create_app` does."""
    if target is None:
        return EngineService(engine or build(settings.engine, settings.engine_options), settings)
    # Only now: an engine needs no loader.
    from ._model import ModelService  # noqa: PLC0415

    return ModelService(target, settings)
