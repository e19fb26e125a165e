"""The pytest plugin: which loop a test runs on, and fixtures. Without an opt-in nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from typing import Final, TypeAlias

import pytest

from . import _fixtures
from ._clock import VirtualTimeLoop

_LoopFactories: TypeAlias = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]

_INI: Final = "streamkit_virtual_time"
_MARKERS: Final = (
    "virtual_time: runs on streamkit's VirtualTimeLoop",
    f"{_fixtures.MARKER}(check=, how=): runs again and again, cancelled at each of its awaits",
    "realtime(*loops): runs on the real clock; once on each loop that is named: asyncio, uvloop",
)
_FIXTURES_NAME: Final = "streamkit_fixtures"
_HOOK_NAME: Final = "streamkit_loop_factories"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    text = "run every asyncio test on virtual time, unless it is marked with realtime"
    parser.addini(_INI, text, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Announce fixtures and markers; choose loops if the project asked for it."""
    config.pluginmanager.register(_fixtures, _FIXTURES_NAME)
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if config.getini(_INI):
        _choose_loops(config)


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Take part from the first test on that is marked with virtual_time."""
    # A wrapper, because it runs before pytest-asyncio's own implementation, which asks for loops.
    if metafunc.definition.get_closest_marker("virtual_time"):
        _choose_loops(metafunc.config)
    return (yield)


class _LoopChoice:
    """Registered on demand: where its hook exists, pytest-asyncio wants an answer for each test."""

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_asyncio_loop_factories(
        self, config: pytest.Config, item: pytest.Item
    ) -> Generator[None, _LoopFactories | None, _LoopFactories]:
        """Answer for tests on virtual time; leave all others to the project's own hook."""
        others = yield
        names = ("realtime", "virtual_time")
        closest = next((mark for mark in item.iter_markers() if mark.name in names), None)
        virtual = config.getini(_INI) if closest is None else closest.name == "virtual_time"
        if virtual:
            return {"virtual": VirtualTimeLoop}
        if closest is not None and closest.args:
            return {name: _real_loop(name) for name in closest.args}
        return others or {"asyncio": asyncio.new_event_loop}


def _choose_loops(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin(_HOOK_NAME):
        if not hasattr(config.hook, "pytest_asyncio_loop_factories"):
            # Silence would be tests that pass on the real clock.
            raise pytest.UsageError(
                "virtual time needs pytest-asyncio 1.4 or newer, which is not loaded: "
                "pip install 'pytest-asyncio>=1.4'"
            )
        config.pluginmanager.register(_LoopChoice(), _HOOK_NAME)


def _real_loop(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name not in _REAL_LOOPS:
        raise pytest.UsageError(f"realtime({name!r}): known loops are {', '.join(_REAL_LOOPS)}")
    return _REAL_LOOPS[name]


def _uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()


_REAL_LOOPS: Final[_LoopFactories] = {"asyncio": asyncio.new_event_loop, "uvloop": _uvloop}
