"""The servers of the session, and what each test is held to: nothing is left in the process."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.servers import SERVERS, Server, start

COMPLAINTS = ("Traceback", "never retrieved", "never awaited", "Task was destroyed", "quarantine")


class Fleet:
    """One process for each server, started when it is first needed, and the next one with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, Server] = {}
        self._waiting = deque(SERVERS)

    def ready(self, name: str) -> Server:
        """The server, once it answers."""
        if name in self._waiting:
            self._waiting.remove(name)
            self._running[name] = start(name, self._folder)
        if not self._running[name].ready and self._waiting:
            # It starts on the other core. All at once would take each the whole of the time.
            after = self._waiting.popleft()
            self._running[after] = start(after, self._folder)
        self._running[name].wait_ready()
        return self._running[name]

    def stop(self) -> None:
        for server in self._running.values():
            server.signal()
        for server in self._running.values():
            server.stop()


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    servers = Fleet(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.stop()


@pytest.fixture
async def server(request: pytest.FixtureRequest, fleet: Fleet) -> AsyncIterator[Server]:
    """The server that the test names; whatever happens in the test, nothing of it is left."""
    async with _left_clean([fleet.ready(request.param)]) as [one]:
        yield one


@pytest.fixture
async def all_servers(fleet: Fleet) -> AsyncIterator[list[Server]]:
    """Every server, for what takes time and no work."""
    async with _left_clean([fleet.ready(name) for name in SERVERS]) as servers:
        yield servers


@asynccontextmanager
async def _left_clean(servers: list[Server]) -> AsyncIterator[list[Server]]:
    before = {server.name: len(server.said().encode()) for server in servers}
    yield servers
    for server in servers:
        account = await server.books()
        assert account["idle"], (server.name, account)
        assert not account["misbehaviours"], (server.name, account)
        said = server.said(before[server.name])
        assert not any(word in said for word in COMPLAINTS), (server.name, said)
