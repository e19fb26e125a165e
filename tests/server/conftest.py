"""What the server's tests share: an app over a fake engine, closed at the end of the test."""

import json
import re
from collections.abc import AsyncIterator, Callable

import pytest

from streamkit.engines import FakeEngine
from streamkit.server.app import Application, create_app
from streamkit.server.settings import Settings
from streamkit.testing import Exchange

MakeApp = Callable[..., Application]


@pytest.fixture
async def make_app() -> AsyncIterator[MakeApp]:
    """Make an app from settings; ``engine`` may be one, or options of a fake one."""
    apps: list[Application] = []

    def make(engine: FakeEngine | dict | None = None, **settings: object) -> Application:
        if not isinstance(engine, FakeEngine):
            engine = FakeEngine(**(engine or {}))
        apps.append(create_app(Settings(**settings), engine=engine))
        return apps[-1]

    yield make
    for app in apps:
        await app.runner.aclose()


@pytest.fixture
def generate() -> Callable[..., Exchange]:
    """Make an exchange with ``POST /generate``; keywords that it does not know are the body's."""

    def make(
        app: Application,
        *,
        events: bool = False,
        headers: dict[str, str] | None = None,
        leaves_after_seconds: float | None = None,
        leaves_after_chunks: int | None = None,
        stops_reading_after_chunks: int | None = None,
        **body: object,
    ) -> Exchange:
        accept = {"accept": "text/event-stream"} if events else {}
        return Exchange(
            app,
            path="/generate",
            json={"prompt": "a b c", **body},
            headers={**accept, **(headers or {})},
            leaves_after_seconds=leaves_after_seconds,
            leaves_after_chunks=leaves_after_chunks,
            stops_reading_after_chunks=stops_reading_after_chunks,
        )

    return make


@pytest.fixture
def get() -> Callable[..., object]:
    """Ask the app for a path; return the JSON of its answer."""

    async def get(app: Application, path: str, *, method: str = "GET", status: int = 200) -> object:
        exchange = await Exchange(app, method=method, path=path).run()
        assert exchange.status == status, exchange.text
        return json.loads(exchange.data)

    return get


@pytest.fixture
def metrics() -> Callable[..., object]:
    """Read ``/metrics``: one metric, summed over those of its series that have the labels."""

    async def read(app: Application, name: str, **labels: str) -> float:
        exchange = await Exchange(app, method="GET", path="/metrics").run()
        total = 0.0
        for line in exchange.text.splitlines():
            match = re.fullmatch(r"(\w+)(\{(.*)\})? (\S+)", line)
            if match is None or match[1] != name:
                continue
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', match[3] or ""))
            if labels.items() <= pairs.items():
                total += float(match[4])
        return total

    return read
