"""Who is compared: how each is started, in which environment, and what it can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

UVICORN: Final = (
    "python", "-m", "uvicorn", "--http", "httptools", "--loop", "uvloop", "--lifespan", "off",
    "--no-access-log", "--log-level", "error", "--backlog", "16384", "--port", "{port}",
)  # fmt: skip
STREAMS: Final = frozenset({"ready", "steps", "bursts", "decode", "prefill", "queued", "idle"})
CALLS: Final = frozenset({"call", "unary"})
SYNC: Final = frozenset({"ready_sync", "decode_sync"})


@dataclass(frozen=True)
class Peer:
    """One contender.

    Attributes:
        name: As the tables have it.
        environment: The requirements file that makes its environment.
        command: How it is started there; ``{port}`` is filled in.
        shapes: The sources that it serves, see ``apps/source.py``.
        paths: Where, if it is not ``/streams/SHAPE`` and ``/calls/SHAPE``.
        group: Those of one group are started together and take turns; heavy ones stand alone,
            because what they do while idle would disturb the others.
    """

    name: str
    command: tuple[str, ...]
    shapes: frozenset[str]
    environment: str = "asgi"
    paths: dict[str, str] = field(default_factory=dict)
    group: str = ""

    def path(self, shape: str) -> str:
        """Where it serves that source."""
        kind = "calls" if shape in CALLS else "streams"
        return self.paths.get(shape, self.paths.get(kind, f"/{kind}") + f"/{shape}")


def _uvicorn(name: str, module: str, shapes: frozenset[str], **paths: str) -> Peer:
    return Peer(name, (*UVICORN, f"benchmarks.apps.{module}:app"), shapes, paths=paths)


BARE: Final = "bare ASGI"
OURS: Final = "streamkit"
OUR_BYTES: Final = "streamkit, ByteStream"
STARLETTE: Final = "Starlette"
SSE_STARLETTE: Final = "sse-starlette"
FASTAPI: Final = "FastAPI"
POLLING: Final = "polling pattern"

PEERS: Final = {
    peer.name: peer
    for peer in (
        _uvicorn(BARE, "bare", STREAMS | CALLS),
        _uvicorn(OURS, "ours", STREAMS | CALLS | SYNC | {"slower"}, streams="/events"),
        _uvicorn(OUR_BYTES, "ours", STREAMS | SYNC, streams="/bytes"),
        _uvicorn(STARLETTE, "starlette", STREAMS | CALLS | SYNC),
        _uvicorn(SSE_STARLETTE, "sse_starlette", STREAMS | SYNC),
        _uvicorn(FASTAPI, "fastapi", STREAMS | CALLS | {"ready_sync"}),
        _uvicorn(POLLING, "polling", STREAMS | CALLS),
    )
}
QUICK: Final = (BARE, OURS, OUR_BYTES, STARLETTE, SSE_STARLETTE)
BASELINES: Final = (BARE, OURS)  # take turns with each heavy peer, too
