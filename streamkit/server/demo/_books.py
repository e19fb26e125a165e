"""What servers say of themselves over HTTP: requests in flight, the engine, the totals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio
from prometheus_client.parser import text_string_to_metric_families

from streamkit._core import Phase, now

from ._talk import Talk

LOOK_EVERY: Final = 0.04  # seconds, the same for both kinds of server, if a look takes no longer
LOOK_SHARE: Final = 0.25  # than this part of it: looking must not be what is measured
ENDED: Final = frozenset({Phase.FINISHED, Phase.CANCELLED, Phase.FAILED, Phase.QUARANTINED})
_LATELY: Final = 50  # ended requests in one look; more than can end between two
_FAMILIES: Final = (
    "streamkit_requests",
    "streamkit_tokens",
    "streamkit_ledger",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One request, as its server sees it.

    Attributes:
        phase: What it is doing.
        tokens: Tokens that the engine made for it.
        blocked: Seconds that it has been blocked in sending.
    """

    phase: Phase
    tokens: int
    blocked: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """An engine's own books: what it does now, and has done since its start."""

    running: int
    queued: int
    steps: int
    tokens: int


class Books(Protocol):
    """What both kinds of server can be asked."""

    async def look(self) -> Mapping[str, Sight]:
        """Requests in flight or ended lately, by id."""
        ...

    async def load(self) -> Load:
        """The engine's own books."""
        ...


class PlainBooks:
    """Asks the plain app, for one of its engines."""

    def __init__(self, talk: Talk, path: str) -> None:
        self._talk = talk
        self._path = f"{path}/books"

    async def look(self) -> Mapping[str, Sight]:
        """Requests in flight or ended, by id."""
        requests = (await self._talk.get_json(self._path))["requests"]
        return {
            request_id: Sight(phase=Phase(each["phase"]), tokens=each["tokens"])
            for request_id, each in requests.items()
        }

    async def load(self) -> Load:
        """The engine's own books."""
        return _load(await self._talk.get_json(self._path))

    def __repr__(self) -> str:
        return f"<PlainBooks {self._path}>"


class StreamkitBooks:
    """Asks ``streamkit serve``."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def look(self) -> Mapping[str, Sight]:
        """Requests in flight or ended lately, by id."""
        requests = (await self._talk.get_json(f"/v1/requests?limit={_LATELY}"))["requests"]
        return {
            each["id"]: Sight(
                phase=Phase(each["phase"]),
                tokens=each["tokens"],
                blocked=each["seconds"].get(Phase.SENDING, 0.0),
            )
            for each in requests
        }

    async def load(self) -> Load:
        """The engine's own books."""
        return _load(await self._talk.get_json("/v1/engine"))

    async def account(self, request_id: str) -> dict[str, Any]:
        """One request's books."""
        return await self._talk.get_json(f"/v1/requests/{request_id}")

    async def in_flight(self) -> int:
        """Requests that have not ended."""
        return len((await self._talk.get_json("/v1/requests?limit=0"))["requests"])

    async def metrics(self) -> dict[str, float]:
        """The totals, by ``name`` and ``name{outcome}``, of all reasons and phases together."""
        text = (await self._talk.get("/metrics")).decode()
        totals: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            if not family.name.startswith(_FAMILIES):
                continue
            totals[family.name] = sum(sample.value for sample in family.samples)
            for sample in family.samples:
                key = f"{family.name}{{{sample.labels.get('outcome', '')}}}"
                totals[key] = totals.get(key, 0) + sample.value
        return totals

    async def generate(self, request_id: str) -> None:
        """Ask for one token and wait for it.

        Raises:
            NoAnswer: It did not come.
        """
        body = {"prompt": request_id, "max_tokens": 1, "stream": False}
        await self._talk.post("/generate", request_id, body)

    def __repr__(self) -> str:
        return f"<StreamkitBooks {self._talk!r}>"


class Watch:
    """Looks into a server's books again and again, and wakes who waits for something in them.

    The clients of a demo are no part of the server, so this is a poll, as any outsider's would be.

    Attributes:
        books: Where it looks.
    """

    __slots__ = ("_news", "_sights", "books")

    def __init__(self, books: Books) -> None:
        self.books = books
        self._sights: dict[str, Sight] = {}
        self._news = anyio.Event()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            began_at = now()
            # Shielded: the connection is not ours alone, so no answer may be left on it. The
            # question limits itself.
            with anyio.CancelScope(shield=True):
                self._sights.update(await self.books.look())
            self._news.set()
            self._news = anyio.Event()
            took = now() - began_at
            await anyio.sleep_until(began_at + max(LOOK_EVERY, took / LOOK_SHARE))

    async def until(self, request_id: str, ready: Callable[[Sight], bool]) -> Sight:
        """Return as soon as that can be said of the request, or it has ended.

        Cancellation:
            Stops waiting.
        """
        while True:
            sight = self._sights.get(request_id)
            if sight is not None and (ready(sight) or sight.phase in ENDED):
                return sight
            await self._news.wait()

    def __repr__(self) -> str:
        return f"<Watch {self.books!r}, {len(self._sights)} requests seen>"


def _load(said: Mapping[str, Any]) -> Load:
    return Load(**{name: said[name] for name in ("running", "queued", "steps", "tokens")})
