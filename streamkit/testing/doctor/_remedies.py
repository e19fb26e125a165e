"""Which setting changes what was found: the directives of each proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ._findings import Finding
from ._identity import Proxy

_LONGER: Final[Mapping[str, Sequence[str]]] = {
    "nginx": ("proxy_read_timeout 1h;",),
    "haproxy": ("timeout server 1h",),
    "caddy": ("no read_timeout and no response_header_timeout in transport http",),
}
REMEDIES: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "buffering": {
        "nginx": (
            "proxy_buffering off;        # or have the server send X-Accel-Buffering: no",
            'proxy_http_version 1.1;     # with proxy_set_header Connection "";',
            "and no proxy_ignore_headers X-Accel-Buffering;",
        ),
        "haproxy": (
            "option http-no-delay        # in defaults: else it waits 0.2 s for more",
            "and no http-response wait-for-body",
        ),
        "caddy": (
            "no response_buffers (before 2.7: buffer_responses) in reverse_proxy",
            "leave flush_interval out: streams are flushed at once without it",
        ),
    },
    "compression": {
        "nginx": (
            "gzip off;                   # or take text/event-stream out of gzip_types",
            "proxy_buffering off;        # what is not buffered is flushed by gzip, too",
        ),
        "haproxy": ("compression type …          # without text/event-stream",),
        "caddy": ("match header Content-Type application/json*   # in encode: no event streams",),
    },
    "leave": {
        "nginx": (
            "proxy_ignore_client_abort off;",
            "and neither proxy_store nor proxy_cache for this location",
        ),
        "haproxy": ("option abortonclose         # in defaults: the backend alone is not enough",),
        "caddy": ("no flush_interval -1 in reverse_proxy: it keeps requests whose client left",),
    },
    "idle": _LONGER,
    "heartbeat": {
        kind: (*lines, "or a heartbeat of the server that is shorter")
        for kind, lines in _LONGER.items()
    },
    "request id": {
        "nginx": ("proxy_set_header X-Request-ID $http_x_request_id;",),
        "haproxy": ("no unique-id-header X-Request-ID, and no http-request set-header of it",),
        "caddy": ("no header_up X-Request-Id in reverse_proxy",),
    },
}
"""By what is wrong, then by the proxy: lines of its configuration."""


def what_to_change(
    findings: Sequence[Finding], proxy: Proxy
) -> Iterator[tuple[str, str, Sequence[str]]]:
    """What is wrong, for which proxy, and its lines; all three proxies if it is not known."""
    wrong: dict[str, list[str]] = {}
    for finding in findings:
        if finding.remedy:
            wrong.setdefault(finding.remedy, []).append(finding.name)
    for remedy, names in wrong.items():
        for kind, lines in REMEDIES[remedy].items():
            if proxy.kind in {"", kind}:
                yield ", ".join(names), kind, lines
