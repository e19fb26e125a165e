"""Fixtures of the pytest plugin, and its marker that runs a test at every cancel point."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import pytest

from ._chaos import every_cancel_point
from ._connection import ASGIApp
from ._faults import Ask, Fault, Seen, visit
from ._serving import ASGI_SERVERS, serve_app

MARKER: Final = "every_cancel_point"

ServesApp: TypeAlias = Callable[[ASGIApp], AbstractAsyncContextManager[str]]
Drops: TypeAlias = Callable[..., Awaitable[Seen]]


@pytest.fixture(params=ASGI_SERVERS)
def asgi_server(request: pytest.FixtureRequest) -> ServesApp:
    """Serve an app while a block runs, on each server in turn: ``asgi_server(app)``."""
    pytest.importorskip(request.param)
    return functools.partial(serve_app, server=request.param)


@pytest.fixture
def dropping_client() -> Drops:
    """Make a request and do a fault to it: takes URL, fault, and the fields of an ``Ask``."""

    async def drop(url: str, fault: Fault | str, **ask: Any) -> Seen:
        return await visit(Ask(url=url, **ask), fault)

    return drop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have marked tests run at every cancel point."""
    for item in items:
        marker = item.get_closest_marker(MARKER)
        if marker is not None and isinstance(item, pytest.Function):
            item.obj = _at_every_point(item.obj, **marker.kwargs)


def _at_every_point(
    test: Callable[..., Any], *, check: Callable[..., object] | None = None, how: str = "scope"
) -> Callable[..., Awaitable[None]]:
    if not inspect.iscoroutinefunction(test):
        raise pytest.UsageError(f"{MARKER} is for async tests: {test.__qualname__} is none")
    if how not in {"scope", "task"}:
        raise pytest.UsageError(f'{MARKER}(how={how!r}): it is "scope" or "task"')
    wanted = set(inspect.signature(check).parameters) if check else set[str]()

    @functools.wraps(test)
    async def at_every_point(**fixtures: Any) -> None:
        of_check = {name: value for name, value in fixtures.items() if name in wanted}
        await every_cancel_point(
            functools.partial(test, **fixtures),
            check=functools.partial(check, **of_check) if check else None,
            how="scope" if how == "scope" else "task",
        )

    return at_every_point
