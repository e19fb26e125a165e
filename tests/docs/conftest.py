"""What runs the code of a page: its files in a folder of their own, beside stand-in engines."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from streamkit.server.app import Application, create_app

STAND_INS = Path(__file__).parent / "stand_ins"
ServeModel = Callable[[str], Awaitable[Application]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, from which can be imported; what is imported is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(STAND_INS), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith((str(tmp_path), str(STAND_INS))):
            del sys.modules[name]


@pytest.fixture
async def serve_model(folder: Path) -> AsyncIterator[ServeModel]:
    """Load a model class of the folder as `streamkit serve` does, without its process."""
    apps: list[Application] = []

    async def serve(target: str) -> Application:
        apps.append(create_app(target=target))
        await apps[-1].service.start()
        await apps[-1].service.wait_ready()
        return apps[-1]

    yield serve
    for app in apps:
        await app.service.aclose()
