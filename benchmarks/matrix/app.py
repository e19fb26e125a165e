"""What every server of the matrix serves: `streamkit serve`'s app, with a door to its engine's log.

The door is a unix socket: whoever asks there is no client of the server, and hides none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
from starlette.types import Message, Receive, Scope, Send

from streamkit.engines import FakeEngine
from streamkit.server.app import Application, build_service
from streamkit.server.settings import Settings, load

DOOR = "MATRIX_DOOR"  # the variable with the path of the unix socket
STEP = 0.005  # seconds of the engine's step
LOOK_EVERY = 0.001  # seconds, while somebody waits for rest
SURE_AFTER = 0.05  # seconds without anything: a connection may still wait to be accepted
PLAIN = 30  # events before the first that is padded: a client may read byte by byte until then
BLOCKED = 0.1  # seconds; a send() that takes longer waits for its client


class Witness:
    """What happened in this process since somebody began to look; instants as time.monotonic()."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._known: set[str] = set()
        self._floor = 0  # sockets of a server without clients
        self._visits = 0  # requests that reached the app
        self._inside = 0
        self._let_go_at: float | None = None
        self._returned_at: float | None = None
        self._blocked_at: float | None = None

    def __repr__(self) -> str:
        return f"<Witness {self._visits} visits, {self._inside} inside>"

    @contextlib.contextmanager
    def visit(self) -> Any:
        """A request is inside of the app."""
        self._visits += 1
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._returned_at = clock()

    def blocked(self, since: float) -> None:
        """The app waits for its client since then."""
        self._blocked_at = since

    async def begin(self, others: int) -> Mapping[str, Any]:
        """Look from now on; so many other clients are connected on purpose."""
        with anyio.move_on_after(10):
            while self._held() > others or sockets() > (self._floor or 1_000) + others:  # noqa: ASYNC110
                await anyio.sleep(LOOK_EVERY)
        self._floor = self._floor or sockets() - others
        self._known = {record.request_id for record in self._engine.log.requests()}
        self._visits = 0
        self._let_go_at = self._returned_at = self._blocked_at = None
        return {"sockets": sockets() - others, "floor": self._floor, "held": self._held()}

    async def rest(self, others: int, within: float, *, gone: bool) -> Mapping[str, Any]:
        """Return when nothing of what came since is left, or after so many seconds.

        Args:
            others: Clients that stay on purpose.
            within: Seconds.
            gone: Wait for the end of the connection as well, although no request is there.
        """
        rested: float | None = None
        with anyio.move_on_after(within):
            while rested is None or clock() < rested + SURE_AFTER:
                if sockets() > self._floor + others:
                    self._let_go_at = None
                elif self._let_go_at is None:
                    self._let_go_at = clock()
                at_rest = self._inside <= others and self._held() <= others
                quiet = self._let_go_at or (self._visits and not gone)
                if not at_rest or not quiet:
                    rested = None
                elif rested is None:
                    rested = clock()
                await anyio.sleep(LOOK_EVERY)
        records = [r for r in self._engine.log.requests() if r.request_id not in self._known]
        return {
            "rested": rested is not None,
            "records": [asdict(record) for record in records],
            "visits": self._visits,
            "let_go_at": self._let_go_at,
            "returned_at": self._returned_at,
            "blocked_at": self._blocked_at,
        }

    def _held(self) -> int:
        books = self._engine.statistics()
        return books.running + books.queued


class Witnessed(Application):
    """The app, and its witness at the door."""

    __slots__ = ("witness",)

    def __init__(self, settings: Settings, *, hears_signals: bool = True) -> None:
        engine = FakeEngine(
            slots=1, step_ms=STEP * 1000, prefill_tokens_per_step=8, max_tokens=1_000_000
        )
        super().__init__(
            build_service(settings, engine=engine), settings, hears_signals=hears_signals
        )
        self.witness = Witness(engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            async with await asyncio.start_unix_server(self._answer, os.environ[DOOR]):
                await super().__call__(scope, receive, send)
            return
        with self.witness.visit():
            # receive() goes through untouched: it is how the middleware finds the connection.
            await super().__call__(scope, receive, self._told(scope, send))

    def _told(self, scope: Scope, send: Send) -> Send:
        query = parse_qs(scope["query_string"].decode())
        padding = b": %s\n\n" % (b"x" * int(query["pad"][0])) if "pad" in query else b""
        loop = asyncio.get_running_loop()
        plain = PLAIN if "spelt" in query else 0

        async def told(message: Message) -> None:
            nonlocal plain
            if body := message.get("body"):
                plain -= 1
                # Two bytes of one character: the engine's words are ASCII. No name of an event has
                # that letter.
                spelt = body.replace(b"l", "ł".encode()) if "spelt" in query else body
                more = padding if plain < 0 and body.startswith(b"data:") else b""
                message = {**message, "body": spelt + more}
            began_at = clock()
            timer = loop.call_later(BLOCKED, self.witness.blocked, began_at)
            try:
                await send(message)
            finally:
                timer.cancel()

        return told

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions and answers are lines of JSON."""
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                question = json.loads(line)
                ask, number = question.pop("ask"), question.pop("number")
                answer = await getattr(self.witness, ask)(**question)
                writer.write(json.dumps({"number": number, **answer}).encode() + b"\n")
                await writer.drain()


def clock() -> float:
    """Seconds; on Linux the same in every process. uvloop's own has milliseconds of it."""
    return time.monotonic()


def sockets() -> int:
    """How many this process has."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            count += "socket:" in str(entry.readlink())
    return count


def make() -> Witnessed:
    """For a server that makes its own process; settings come from the environment."""
    return Witnessed(load({}, os.environ))
