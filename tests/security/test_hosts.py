"""Where hosts are named, nobody is answered who asks for another: no page that rebound its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamkit.server.settings import Settings, SettingsError, load
from streamkit.testing import Exchange
from tests.asgi.socket_exchange import SocketExchange

ALLOWED = "localhost, 127.0.0.1,[::1],*.Example.com"


@pytest.fixture
def app(make_app):
    return make_app(allowed_hosts=ALLOWED)


async def ask(app, *hosts: str, path: str = "/health/live") -> Exchange:
    headers = dict(zip(("host", "Host"), hosts, strict=False))  # two, where there are two
    return await Exchange(app, method="GET", path=path, headers=headers).run()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1:1",
        "[::1]:8000",
        "a.example.com",
        "a.b.example.com",
    ],
)
async def test_who_asks_for_a_host_that_is_named_is_served(app, host: str) -> None:
    assert (await ask(app, host)).status == 200


@pytest.mark.parametrize("path", ["/health/live", "/v1/requests", "/metrics", "/nowhere"])
@pytest.mark.parametrize(
    "hosts",
    [
        ("attacker.test",),
        ("attacker.test:8000",),
        ("localhost.attacker.test",),
        ("attackerexample.com",),
        ("example.com",),
        ("localhost", "attacker.test"),
        ("localhost@attacker.test",),
        ("local\xe9host",),
        ("",),
    ],
)
async def test_a_host_that_is_not_served_is_400_in_our_words_and_reaches_nothing(
    app, hosts: tuple[str, ...], path: str
) -> None:
    exchange = await ask(app, *hosts, path=path)

    assert exchange.status == 400
    assert json.loads(exchange.data)["error"] == {
        "message": "this host is not served here (allowed_hosts)",
        "type": "invalid_request_error",
        "code": "host_not_allowed",
    }


@pytest.mark.parametrize("denies", [True, False])
async def test_a_websocket_for_another_host_is_refused_before_it_is_accepted(app, denies) -> None:
    exchange = SocketExchange(app, path="/v1/websocket", denies=denies)
    await exchange.run()

    first = exchange.sent[0]
    assert first["type"] == ("websocket.http.response.start" if denies else "websocket.close")


async def test_without_names_every_host_is_served(make_app) -> None:
    assert (await ask(make_app(), "attacker.test")).status == 200


@pytest.mark.parametrize("names", ["*", "localhost:8000", "http://localhost", "a b", "", "*."])
def test_what_is_no_name_is_refused_with_what_would_be_one(names: str) -> None:
    with pytest.raises(SettingsError, match=r"^--allowed-hosts: input should be names"):
        load({"allowed_hosts": names}, {})


def test_a_file_has_a_list(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('allowed_hosts = ["localhost", "*.example.com"]')
    assert load({}, {}, file).allowed_hosts == ("localhost", "*.example.com")

    file.write_text("allowed_hosts = []")
    with pytest.raises(SettingsError, match="input should be names, or off"):
        load({}, {}, file)
    assert Settings(allowed_hosts="off").allowed_hosts is None  # type: ignore[arg-type]
