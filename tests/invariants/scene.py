"""One server on virtual time, the clients that come to it, and what is logged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import anyio
import anyio.lowlevel

from streamkit.runner import Account
from streamkit.server.app import Application
from streamkit.server.settings import Settings
from streamkit.testing import Exchange, VirtualTimeLoop, wait_all_tasks_blocked

STEP = 0.02  # seconds of one step of what is served
DEADLINE = 1.0
WRITE_STALL = 0.5
LONG = 300.0  # virtual seconds; whatever was started has ended by then, or never will


@dataclass(slots=True, eq=False)
class Guest:
    """A client, and all that was done to it that may cut it short."""

    exchange: Exchange
    form: str
    asks: Any  # the question, by which its answer is known
    tokens: int  # that a whole answer has
    causes: set[str] = field(default_factory=set)
    ended: Account | None = None  # its books when they were first seen closed
    task: asyncio.Task[Any] | None = None


class Witness(logging.Handler):
    """What streamkit and asyncio log: access lines by request id, and errors."""

    BROKEN = "a stream broke off"

    def __init__(self, told_elsewhere: frozenset[str]) -> None:
        super().__init__()
        self.told_elsewhere = told_elsewhere  # what these say is an error, the books say as well
        self.visits: list[str] = []
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.exc_info = None  # pytest keeps records, and with the frames of one its request
        if record.name == "streamkit.access":
            self.visits.append(json.loads(record.getMessage())["id"])
        elif record.levelno < logging.ERROR or record.name in self.told_elsewhere:
            return
        elif record.getMessage() != self.BROKEN:
            self.errors.append(f"{record.name}: {record.getMessage()}")


class Scene:
    """Whoever acts on it acts within its loop; between two acts nothing happens."""

    TOLD_ELSEWHERE: ClassVar[frozenset[str]]

    def __init__(self, *, server: str) -> None:
        self.loop = VirtualTimeLoop()
        self.server = server
        self.witness = Witness(self.TOLD_ELSEWHERE)
        self.loggers = [logging.getLogger(name) for name in ("streamkit", "asyncio")]
        for logger in self.loggers:
            logger.addHandler(self.witness)
        self.level = self.loggers[0].level
        self.loggers[0].setLevel(logging.INFO)  # not the attribute: loggers remember
        self.app = self.loop.run_until_complete(self._made())
        self.runner = self.app.runner
        self.guests: dict[str, Guest] = {}
        self.drains: list[asyncio.Task[None]] = []

    def make_app(self) -> Application:
        raise NotImplementedError

    async def _made(self) -> Application:
        """Within the loop, as a server does: threads are counted in the loop that runs."""
        return self.make_app()

    @property
    def broken(self) -> bool:
        """What is served has died, and cuts everybody short."""
        return False

    @staticmethod
    def settings(**more: Any) -> Settings:
        return Settings(
            max_queued=4,
            request_timeout=DEADLINE,
            write_stall=WRITE_STALL,
            access_log="json",
            **more,
        )

    def run(self, act: Callable[[], Awaitable[None]]) -> None:
        """Let ``act`` happen; whatever else was due meanwhile happens as well."""

        async def acting() -> None:
            await act()

        self.loop.run_until_complete(acting())

    def next_name(self) -> str:
        return f"g{len(self.guests)}"

    def come(self, guest: Guest) -> str:
        name = self.next_name()
        self.guests[name] = guest
        guest.task = self.loop.create_task(guest.exchange.run(), name=name)
        return name

    def ask(self, path: str, accept: str, body: Any, **client: Any) -> Exchange:
        """A request in two pieces, by the next guest."""
        payload = json.dumps(body).encode()
        headers = {"accept": accept, "content-type": "application/json"}
        return Exchange(
            self.app,
            path=path,
            body=[payload[:5], payload[5:]],
            headers={"x-request-id": self.next_name(), **headers},
            server=self.server,
            **client,
        )

    def may_end(self, name: str, cause: str) -> None:
        """From now on this may cut it short, unless something has: the first cause wins."""
        account = self.runner.find(name)
        if account is None or account.reason is None:
            self.guests[name].causes.add(cause)

    async def cancel_by_api(self, name: str) -> None:
        asked = await Exchange(self.app, path=f"/v1/requests/{name}/cancel").run()
        if asked.status == 200 and json.loads(asked.data)["outcome"] == "cancelled":
            # This call cut it short and nothing else: only this may stand in its books.
            self.guests[name].causes = {"requested"}

    async def drain(self, grace: float) -> None:
        self.drains.append(self.loop.create_task(self.runner.drain(grace), name="drain"))
        for name in self.guests:
            self.may_end(name, "drain")

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await anyio.lowlevel.checkpoint()

    async def come_to_rest(self) -> None:
        """Nothing more is done; return when nothing more can happen."""
        with anyio.fail_after(LONG):
            for task in (*self.drains, *(guest.task for guest in self.guests.values())):
                await asyncio.wait([task])
            await self.runner.in_flight.wait_idle()
        await anyio.sleep(2 * LONG)  # what was given up has ended, all timers have gone off
        await wait_all_tasks_blocked()

    def close(self) -> None:
        self.run(self.app.service.aclose)
        for logger in self.loggers:
            logger.removeHandler(self.witness)
        self.loggers[0].setLevel(self.level)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
