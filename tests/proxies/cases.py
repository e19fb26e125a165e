"""Configurations of real proxies, and what the doctor has to find in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HELD = frozenset({"buffering", "heartbeats"})
LEAVES = frozenset({"leave: no byte yet", "leave: one answer"})
IGNORES = "proxy_ignore_headers X-Accel-Buffering;"
GZIP = "gzip on; gzip_proxied any; gzip_types text/event-stream;"
PROMPT = "option http-no-delay"
BOTH = f"{PROMPT}\n    option abortonclose"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A configuration.

    Attributes:
        proxy: Which.
        name: What is particular to it; for a table.
        lines: Of its configuration, by their place.
        finds: What is wrong with it.
        looks: What is looked at; empty: everything.
        serve: Flags of the server behind it.
        cures: The directive that has to be named.
    """

    proxy: str
    name: str
    lines: Mapping[str, str] = field(default_factory=dict[str, str])
    finds: frozenset[str] = frozenset()
    looks: frozenset[str] = frozenset()
    serve: tuple[str, ...] = ()
    cures: str = ""

    def __str__(self) -> str:
        return f"{self.proxy}: {self.name}"


# uvicorn's h11 sends no chunks to HTTP/1.0, which nginx speaks to servers unless told otherwise.
PLAIN = ("--http=h11",)
CASES = (
    Case(proxy="nginx", name="as it comes"),
    Case(
        proxy="nginx",
        name="`proxy_ignore_headers X-Accel-Buffering`, the server sends no chunks",
        lines={"lines": IGNORES},
        finds=HELD,
        looks=HELD,
        serve=PLAIN,
        cures="proxy_buffering off;",
    ),
    Case(
        proxy="nginx",
        name="the same with `proxy_buffering off`",
        lines={"lines": f"{IGNORES} proxy_buffering off;"},
        looks=HELD,
        serve=PLAIN,
    ),
    Case(
        proxy="nginx",
        name="the same with `proxy_http_version 1.1`",
        lines={"lines": f'{IGNORES} proxy_http_version 1.1; proxy_set_header Connection "";'},
        looks=HELD,
        serve=PLAIN,
    ),
    Case(
        proxy="nginx",
        name="`gzip_types text/event-stream`, `proxy_ignore_headers X-Accel-Buffering`",
        lines={"lines": f"{IGNORES} {GZIP}"},
        finds=frozenset({"compression"}),
        looks=frozenset({"buffering", "compression"}),
        cures="gzip off;",
    ),
    Case(
        proxy="nginx",
        name="the same gzip with `proxy_buffering off`",
        lines={"lines": f"{IGNORES} {GZIP} proxy_buffering off;"},
        looks=frozenset({"buffering", "compression"}),
    ),
    Case(
        proxy="nginx",
        name="`proxy_ignore_client_abort on`",
        lines={"lines": "proxy_ignore_client_abort on;"},
        finds=LEAVES,
        looks=LEAVES | {"half-close"},
        cures="proxy_ignore_client_abort off;",
    ),
    Case(
        proxy="nginx",
        name="`proxy_store` for what it passes on",
        lines={"lines": "proxy_store {folder}/stored;"},
        finds=LEAVES,
        looks=LEAVES,
        cures="proxy_store",
    ),
    Case(
        proxy="nginx",
        name="`proxy_read_timeout 1500ms`",
        lines={"lines": "proxy_read_timeout 1500ms;"},
        finds=frozenset({"silence"}),
        looks=frozenset({"silence", "heartbeats"}),
        cures="proxy_read_timeout",
    ),
    Case(
        proxy="nginx",
        name="`proxy_set_header X-Request-ID $request_id`",
        lines={"lines": "proxy_set_header X-Request-ID $request_id;"},
        finds=frozenset({"request"}),
        looks=frozenset({"request", "leave: streaming"}),
        cures="proxy_set_header X-Request-ID $http_x_request_id;",
    ),
    Case(
        proxy="haproxy",
        name="as it comes",
        finds=LEAVES | {"buffering"},
        cures="option abortonclose",
    ),
    Case(
        proxy="haproxy",
        name="`option http-no-delay`",
        lines={"lines": PROMPT},
        finds=LEAVES,
        looks=LEAVES | {"buffering"},
        cures="option abortonclose",
    ),
    Case(
        proxy="haproxy",
        name="the same, `option abortonclose` in the backend only",
        lines={"lines": PROMPT, "backend": "option abortonclose"},
        finds=LEAVES,
        looks=LEAVES,
        cures="in defaults",
    ),
    Case(
        proxy="haproxy",
        name="`option http-no-delay` and `option abortonclose` in `defaults`",
        lines={"lines": BOTH},
    ),
    Case(
        proxy="haproxy",
        name="the same with `option http-buffer-request`",
        lines={"lines": f"{BOTH}\n    option http-buffer-request"},
        looks=LEAVES | {"buffering", "request"},
    ),
    Case(
        proxy="haproxy",
        name="the same with `http-response wait-for-body`",
        lines={"lines": BOTH, "backend": "http-response wait-for-body time 5s"},
        finds=HELD,
        looks=HELD,
        cures="http-response wait-for-body",
    ),
    Case(
        proxy="haproxy",
        name="the same with `compression type text/event-stream`",
        lines={
            "lines": f"{BOTH}\n    compression algo gzip\n    compression type text/event-stream"
        },
        looks=frozenset({"compression"}),
    ),
    Case(
        proxy="haproxy",
        name="the same with `timeout server 1500ms`",
        lines={"lines": f"{BOTH}\n    timeout server 1500ms"},
        finds=frozenset({"silence"}),
        looks=frozenset({"silence", "heartbeats"}),
        cures="timeout server",
    ),
    Case(
        proxy="haproxy",
        name="the same with `unique-id-header X-Request-ID`",
        lines={"lines": f"{BOTH}\n    unique-id-format %[uuid]\n    unique-id-header X-Request-ID"},
        finds=frozenset({"request"}),
        looks=frozenset({"request", "leave: streaming"}),
        cures="no unique-id-header X-Request-ID",
    ),
    Case(proxy="caddy", name="as it comes"),
    Case(
        proxy="caddy",
        name="`flush_interval -1`",
        lines={"lines": "flush_interval -1"},
        finds=LEAVES,
        looks=LEAVES | {"buffering", "half-close"},
        cures="no flush_interval -1",
    ),
    Case(
        proxy="caddy",
        name="`buffer_responses`",
        lines={"lines": "buffer_responses"},
        finds=HELD,
        looks=HELD,
        cures="buffer_responses",
    ),
    Case(
        proxy="caddy",
        name="`encode gzip` with `minimum_length 1`",
        lines={"site": "encode gzip {\n        minimum_length 1\n    }"},
        finds=frozenset({"compression"}),
        looks=frozenset({"buffering", "compression"}),
        cures="match header Content-Type",
    ),
    Case(
        proxy="caddy",
        name="the same with `match header Content-Type application/json*`",
        lines={
            "site": "encode gzip {\n        minimum_length 1\n"
            "        match header Content-Type application/json*\n    }"
        },
        looks=frozenset({"buffering", "compression"}),
    ),
    Case(
        proxy="caddy",
        name="`read_timeout 1500ms` in `transport http`",
        lines={"lines": "transport http {\n            read_timeout 1500ms\n        }"},
        finds=frozenset({"silence"}),
        looks=frozenset({"silence", "heartbeats"}),
        cures="read_timeout",
    ),
    Case(
        proxy="caddy",
        name="`response_header_timeout 1500ms` in `transport http`",
        lines={"lines": "transport http {\n            response_header_timeout 1500ms\n        }"},
        finds=frozenset({"silence"}),
        looks=frozenset({"silence", "heartbeats"}),
        cures="response_header_timeout",
    ),
    Case(
        proxy="caddy",
        name="`header_up X-Request-Id {http.request.uuid}`",
        lines={"lines": "header_up X-Request-Id {http.request.uuid}"},
        finds=frozenset({"request"}),
        looks=frozenset({"request", "leave: streaming"}),
        cures="no header_up X-Request-Id",
    ),
)
