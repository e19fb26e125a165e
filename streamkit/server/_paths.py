"""Which route a path has: found once by Starlette's own matching, then remembered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Lifespan, Receive, Scope, Send

_REMEMBERED: Final = 256  # paths; clients may make up as many as they like

Found = tuple[Route, dict[str, Any]]


class Paths:
    """Routes a request. The router tries one regular expression after the other, for each request.

    Args:
        routes: All routes; of two with the same path and method the first counts.
        lifespan: The application's.
    """

    __slots__ = ("_find", "_plain", "_router")

    def __init__(self, routes: Sequence[BaseRoute], lifespan: Lifespan[Router]) -> None:
        self._router = Router(routes, redirect_slashes=False, lifespan=lifespan)
        self._plain = plain = [route for route in routes if isinstance(route, Route)]

        @lru_cache(_REMEMBERED)
        def find(method: str, path: str) -> Found | None:
            scope: Scope = {"type": "http", "method": method, "path": path}
            for route in plain:
                match, child = route.matches(scope)
                if match is Match.FULL:
                    return route, child["path_params"]
            return None

        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Leaves in the scope what the router would."""
        if scope["type"] == "http" and not scope.get("root_path"):
            found = self._find(scope["method"], scope["path"])
            if found is not None:
                route, params = found
                scope["router"], scope["route"] = self._router, route
                scope["endpoint"], scope["path_params"] = route.endpoint, {**params}
                await route.app(scope, receive, send)
                return
            self._refuse_method(scope)
        await self._router(scope, receive, send)

    def _refuse_method(self, scope: Scope) -> None:
        """Name every method of a path; the router would name those of its first route alone.

        Raises:
            HTTPException: 405, for a path that there is.
        """
        routes = [route for route in self._plain if route.matches(scope)[0] is Match.PARTIAL]
        if routes:
            scope["endpoint"] = routes[0].endpoint
            methods = {method for route in routes for method in route.methods or ()}
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
