"""Who is compared: how each is started, in which environment, and what it can be asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

UVICORN: Final = (
    "python", "-m", "uvicorn", "--http", "httptools", "--loop", "uvloop", "--lifespan", "off",
    "--no-access-log", "--log-level", "error", "--backlog", "16384", "--port", "{port}",
)  # fmt: skip
STREAMS: Final = frozenset({"ready", "steps", "bursts", "decode", "prefill", "queued", "idle"})
CALLS: Final = frozenset({"call", "unary", "together"})
SYNC: Final = frozenset({"ready_sync", "decode_sync"})
_PRODUCING: Final = frozenset({"ready", "ready_sync", "steps", "bursts"})
_SILENT: Final = ("--access-log", "off")


@dataclass(frozen=True)
class Peer:
    """One contender.

    Attributes:
        name: As the tables have it.
        environment: The requirements file that makes its environment.
        command: How it is started there; ``{port}`` is filled in.
        shapes: The sources that it serves, see ``apps/source.py``.
        paths: Where, if it is not ``/streams/SHAPE`` and ``/calls/SHAPE``.
        model: Where a model class is served: what is wanted stands in the body then.
        ready: What answers 200 once it is; empty: it is when it accepts connections.
        group: Those of one group are started together and take turns; heavy ones stand alone,
            because what they do while idle would disturb the others.
        optional: Takes part only when it is named.
    """

    name: str
    command: tuple[str, ...]
    shapes: frozenset[str]
    environment: str = "asgi"
    paths: dict[str, str] = field(default_factory=dict)
    model: str = ""
    ready: str = ""
    group: str = ""
    optional: bool = False

    def ask(self, shape: str, row: int, n: int) -> tuple[str, bytes | None]:
        """Where it serves that source, and the body that asks for it."""
        if self.model or shape.startswith("predict"):
            body = json.dumps({"shape": shape, "row": row, "n": n}).encode()
            return self.paths.get(shape, self.model or f"/{shape}"), body
        kind = "calls" if shape in CALLS else "streams"
        path = f"{self.paths.get(kind, f'/{kind}')}/{shape}"
        return f"{path}?row={row}&n={n}", b"{}" if shape in CALLS else None


def _uvicorn(name: str, module: str, shapes: frozenset[str], **paths: str) -> Peer:
    return Peer(name, (*UVICORN, f"benchmarks.apps.{module}:app"), shapes, paths=paths)


def _serve(name: str, model: str, shapes: frozenset[str], *options: str, group: str = "") -> Peer:
    command = ("streamkit", "serve", _MODELS + model, "--port", "{port}", *options)
    return Peer(name, command, shapes, model="/predict", group=group)


def _truss(name: str, model: str, shapes: frozenset[str]) -> Peer:
    command = ("python", "-m", "benchmarks.apps.truss", _MODELS + model, "{port}")
    path = "/v1/models/model"
    return Peer(name, command, shapes, "truss", model=f"{path}:predict", ready=path, group="Truss")


def _heavy(
    name: str,
    environment: str,
    command: tuple[str, ...],
    path: str = "",
    *,
    ready: str,
    optional: bool = False,
) -> Peer:
    """Has one path for streams and one for the rest, or one for both."""
    streams = dict.fromkeys(STREAMS, path or "/stream")
    return Peer(
        name, command, _STREAMING_MODEL, environment, streams, path or "/predict", ready,
        group=name, optional=optional,
    )  # fmt: skip


def _module(name: str) -> tuple[str, ...]:
    return ("python", "-m", f"benchmarks.apps.{name}", "{port}")


BARE: Final = "bare ASGI"
OURS: Final = "streamkit"
OUR_BYTES: Final = "streamkit, ByteStream"
STARLETTE: Final = "Starlette"
SSE_STARLETTE: Final = "sse-starlette"
FASTAPI: Final = "FastAPI"
FASTAPI_EVENTS: Final = "FastAPI, events"
POLLING: Final = "polling pattern"
READY_MADE: Final = "(load generator alone)"
SERVE: Final = "streamkit serve"  # without an access log, as the uvicorns beside it
SERVE_SYNC: Final = "streamkit serve, sync"
SHIPPED: Final = "streamkit serve, as shipped"  # beside Truss, which logs each request, too
SHIPPED_SYNC: Final = "streamkit serve, as shipped, sync"
ENGINE: Final = "streamkit serve, engine"
RUNS_ON: Final = "an engine that is not told"
TRUSS: Final = "Truss"
TRUSS_SYNC: Final = "Truss, sync"
LITSERVE: Final = "LitServe"
BENTOML: Final = "BentoML"
RAY: Final = "Ray Serve"

_MODELS: Final = "{root}/benchmarks/apps/models/"
_ENGINE: Final = (
    "streamkit", "serve", "--port", "{port}", "--max-queued", "4000", *_SILENT,
    "--engine-option", "slots=50", "--engine-option", "step_ms=10",
)  # fmt: skip
_BENTOML: Final = (
    "bentoml", "serve", "benchmarks.apps.bento:Bento", "--host", "127.0.0.1", "--port", "{port}",
)  # fmt: skip
_PREDICT: Final = frozenset({"predict"})
_PREDICT_SYNC: Final = frozenset({"predict_sync"})
_STREAMING_MODEL: Final = _PREDICT | {"ready", "decode", "prefill", "idle", "unary"}
_SYNC_MODEL: Final = _PREDICT_SYNC | SYNC

PEERS: Final = {
    peer.name: peer
    for peer in (
        _uvicorn(BARE, "bare", STREAMS | CALLS),
        _uvicorn(OURS, "ours", STREAMS | CALLS | SYNC, streams="/events"),
        _uvicorn(OUR_BYTES, "ours", _PRODUCING, streams="/bytes"),
        _uvicorn(STARLETTE, "starlette", STREAMS | CALLS | SYNC),
        _uvicorn(SSE_STARLETTE, "sse_starlette", STREAMS | SYNC),
        _uvicorn(FASTAPI, "fastapi", CALLS | _PREDICT | _PREDICT_SYNC),
        _uvicorn(FASTAPI_EVENTS, "fastapi", STREAMS | {"ready_sync"}),
        _uvicorn(POLLING, "polling", STREAMS | CALLS),
        Peer(READY_MADE, _module("ready_made"), frozenset({"ready"})),
        _serve(SERVE, "awaited", _PREDICT | {"together"}, *_SILENT),
        _serve(SERVE_SYNC, "threaded", _PREDICT_SYNC, *_SILENT),
        Peer(ENGINE, _ENGINE, frozenset({"generate"})),
        _uvicorn(RUNS_ON, "runs_on", frozenset({"generate"})),
        _serve(SHIPPED, "awaited", _STREAMING_MODEL, group="Truss"),
        _serve(SHIPPED_SYNC, "threaded", _SYNC_MODEL, group="Truss"),
        _truss(TRUSS, "awaited", _STREAMING_MODEL),
        _truss(TRUSS_SYNC, "threaded", _SYNC_MODEL),
        _heavy(LITSERVE, "litserve", _module("litserve"), ready="/health"),
        _heavy(BENTOML, "bentoml", _BENTOML, ready="/readyz"),
        _heavy(RAY, "ray", _module("ray_serve"), "/", ready="/-/healthz", optional=True),
    )
}
QUICK: Final = (
    READY_MADE, BARE, OURS, OUR_BYTES, STARLETTE, SSE_STARLETTE, FASTAPI, SERVE, SERVE_SYNC,
    ENGINE, RUNS_ON,
)  # fmt: skip
DEFAULT: Final = tuple(name for name, peer in PEERS.items() if not peer.optional)
BASELINES: Final = (BARE, OURS)  # take turns with each heavy peer, too
