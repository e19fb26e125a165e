"""What a test sees of a model in another process: its books, what it wrote, its next answer."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import anyio

from streamkit.testing import LeavingClient, open_request
from tests.server.serving import LIMIT, Served

ASK_EVERY = (0.005, 0.05)  # seconds; less and less often: what is asked works for each answer
AT_ONCE = 0.5  # seconds; some milliseconds on a machine that is idle
ENDED = {"finished", "cancelled", "failed", "quarantined"}
_ids = count()


@dataclass
class Visit:
    """One request to a model of `models/witness.py`."""

    served: Served
    log: Path
    at: str
    path: str = "/predict"
    id: str = field(default_factory=lambda: f"visit-{next(_ids)}")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LeavingClient]:
        inputs = {"log": str(self.log), "at": self.at}
        mine = {"x-request-id": self.id}
        url = self.served.url + self.path
        async with open_request("POST", url, json=inputs, headers=mine) as client:
            yield client

    async def wait_there(self) -> None:
        """The model has come to the moment."""

        async def there() -> bool:
            return bool(self.when("there"))

        await until(there)

    def when(self, word: str) -> list[float]:
        """The instants at which the model wrote that word."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [float(line.split()[1]) for line in lines if line.split()[0] == word]

    async def account(self) -> dict[str, Any]:
        return await get(self.served, f"/v1/requests/{self.id}")

    async def wait_ended(self) -> dict[str, Any]:
        """Its books, when they are closed."""

        async def ended() -> bool:
            return (await self.account()).get("phase") in ENDED

        await until(ended)
        return await self.account()


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again: there is no event across processes."""
    pause, longest = ASK_EVERY
    with anyio.fail_after(LIMIT):
        while not await reached():
            await anyio.sleep(pause)
            pause = min(pause * 1.2, longest)


async def get(served: Served, path: str) -> Any:
    # Not httpx: it takes 20 ms to make a client.
    async with open_request("GET", served.url + path, timeout=LIMIT) as client:
        return json.loads(await client.read_body())


async def engine_has(served: Served, **expected: object) -> bool:
    """Whether these are the books of the model as a whole."""
    books = await get(served, "/v1/engine")
    return {name: books[name] for name in expected} == expected


async def assert_next_is_served(served: Served, path: str = "/predict", **inputs: object) -> None:
    """At once, and whole."""
    began = time.monotonic()  # noqa: TID251 - real time is what this is about
    async with open_request("POST", served.url + path, json=inputs, timeout=LIMIT) as client:
        assert (await client.read_head()).status == 200
        assert await client.read_body()
        assert client.ended_cleanly
    assert time.monotonic() - began < AT_ONCE  # noqa: TID251
