"""Which route a path has: a look into a table, and for paths with parameters Starlette's router."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send


class Paths:
    """Routes a request. The router tries one regular expression after the other; most need none.

    Args:
        routes: All routes; of two with the same path and method the first counts.
        lifespan: The application's.
    """

    __slots__ = ("_fixed", "_router")

    def __init__(self, routes: Sequence[BaseRoute], lifespan: Lifespan[Router]) -> None:
        self._router = Router(routes, redirect_slashes=False, lifespan=lifespan)
        self._fixed: dict[tuple[str, str], Route] = {}
        for route in routes:
            if isinstance(route, Route) and not route.param_convertors:
                for method in route.methods or ():
                    self._fixed.setdefault((method, route.path), route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Leaves in the scope what the router would."""
        app: ASGIApp = self._router
        if scope["type"] == "http" and not scope.get("root_path"):
            route = self._fixed.get((scope["method"], scope["path"]))
            if route is not None:
                scope["router"], scope["route"] = self._router, route
                scope["endpoint"], scope["path_params"] = route.endpoint, {}
                app = route.app
        await app(scope, receive, send)
