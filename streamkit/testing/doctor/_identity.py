"""Which proxy it is: by what it says of itself, and by how it refuses what is not HTTP."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from streamkit.testing._clients import open_connection
from streamkit.testing._faults import Ask
from streamkit.testing._http1 import BadResponse, Head

from ._findings import shown

_HEADERS: Final = ("server", "via", "x-powered-by", "x-cache")
_NAMES: Final = {
    "nginx": "nginx",
    "openresty": "nginx",
    "tengine": "nginx",
    "haproxy": "haproxy",
    "caddy": "caddy",
}
# For these no settings are known here, but the name helps.
_OTHERS: Final = ("envoy", "cloudflare", "traefik", "apache", "varnish", "awselb", "akamai", "gws")
_NO_HTTP: Final = b"doctor\r\n\r\n"
_REFUSALS: Final = (
    (re.compile(r"<center>(nginx|openresty|tengine)"), "nginx"),
    (re.compile(r"<h1>400 Bad request</h1>\nYour browser sent an invalid request"), "haproxy"),
    (re.compile(r"^400 Bad Request$"), "a server in Go"),  # Caddy and Traefik are
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Who answers first.

    Attributes:
        kind: ``nginx``, ``haproxy``, ``caddy``; empty: another one, or nobody knows.
        said: What it was told by.
    """

    kind: str
    said: str


async def identify(ask: Ask, head: Head | None) -> Proxy:
    """Tell the outermost proxy from an answer, and from its refusal of what is not HTTP."""
    for name in _HEADERS:
        value = head.headers.get(name, "") if head is not None else ""
        for part, kind in _NAMES.items():
            if part in value.lower():
                return Proxy(kind=kind, said=shown(f"{name}: {value}"))
    refusal = await _refusal(ask)
    for pattern, kind in _REFUSALS:
        if pattern.search(refusal):
            known = kind if kind in _NAMES.values() else ""
            return Proxy(kind=known, said=f"{kind}, by how it refuses what is not HTTP")
    for name in _HEADERS:
        value = head.headers.get(name, "") if head is not None else ""
        if any(other in value.lower() for other in _OTHERS):
            return Proxy(kind="", said=shown(f"{name}: {value}"))
    return Proxy(kind="", said="not recognised")


async def _refusal(ask: Ask) -> str:
    parts = urlsplit(ask.url)
    try:
        async with open_connection(
            f"{parts.scheme}://{parts.netloc}", timeout=min(2.0, ask.timeout), tls=ask.tls
        ) as client:
            await client.send(_NO_HTTP)
            await client.read_head()
            return (await client.read_body()).decode(errors="replace")
    except (OSError, BadResponse):
        return ""
