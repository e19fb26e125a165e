"""The servers of the session, and what each test is held to: nothing is left in the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.e2e.servers import SERVERS, Server, start

COMPLAINTS = ("Traceback", "never retrieved", "never awaited", "Task was destroyed", "quarantine")


@pytest.fixture(scope="session")
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Server]]:
    """One process for each server that a selected test needs; all of them start at once."""
    names = set[str]().union(*(_needed(item) for item in request.session.items))
    folder = tmp_path_factory.mktemp("servers")
    servers = {name: start(name, folder) for name in sorted(names)}
    yield servers
    for server in servers.values():
        server.signal()
    for server in servers.values():
        server.stop()


def _needed(item: pytest.Item) -> set[str]:
    if "all_servers" in getattr(item, "fixturenames", ()):
        return set(SERVERS)
    spec = getattr(item, "callspec", None)
    return {spec.params["server"]} if spec and "server" in spec.params else set()


@pytest.fixture
async def server(request: pytest.FixtureRequest, fleet: dict[str, Server]) -> AsyncIterator[Server]:
    """The server that the test names; whatever happens in the test, nothing of it is left."""
    async with _left_clean([fleet[request.param]]) as [one]:
        yield one


@pytest.fixture
async def all_servers(fleet: dict[str, Server]) -> AsyncIterator[list[Server]]:
    """Every server, for what takes time and no work."""
    async with _left_clean([fleet[name] for name in SERVERS]) as servers:
        yield servers


@asynccontextmanager
async def _left_clean(servers: list[Server]) -> AsyncIterator[list[Server]]:
    for server in servers:
        server.wait_ready()
    before = {server.name: len(server.said().encode()) for server in servers}
    yield servers
    for server in servers:
        account = await server.books()
        assert account["idle"], (server.name, account)
        assert not account["misbehaviours"], (server.name, account)
        said = server.said(before[server.name])
        assert not any(word in said for word in COMPLAINTS), (server.name, said)
