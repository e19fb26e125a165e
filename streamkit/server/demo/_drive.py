"""One run of the traffic against one kind of server, until its engines have nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from streamkit._core import now

from ._plan import Scene, Visit
from ._traffic import Place, Stay, run_traffic

IDLE_LIMIT: Final = 20.0  # seconds that engines may go on after the last client
LOOK_EVERY: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an engine did, by its own log."""

    tokens: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """What the run did.

    Attributes:
        stays: What became of each client.
        work: What each engine did meanwhile.
        idle_after: Seconds from the first client to engines with nothing to do; None: never.
    """

    stays: Sequence[Stay]
    work: Mapping[Scene, Work]
    idle_after: float | None


async def drive(
    visits: Sequence[Visit], places: Mapping[Scene, Place], done: Callable[[Visit], object]
) -> Driven:
    """Run the traffic; return when the engines are idle, or will not be.

    Cancellation:
        All clients close their sockets.
    """
    before = await _work(places)
    start = now()
    stays = await run_traffic(visits, places, done)
    idle = await wait_idle(places)
    idle_after = now() - start if idle else None
    after = await _work(places)
    work = {
        scene: Work(
            tokens=after[scene].tokens - before[scene].tokens,
            steps=after[scene].steps - before[scene].steps,
        )
        for scene in places
    }
    return Driven(stays=stays, work=work, idle_after=idle_after)


async def wait_idle(places: Mapping[Scene, Place]) -> bool:
    """Return True once no engine has anything to do, False if that takes too long."""
    with anyio.move_on_after(IDLE_LIMIT):
        for place in places.values():
            while await _busy(place):  # noqa: ASYNC110 - in another process, there is no event
                await anyio.sleep(LOOK_EVERY)
        return True
    return False


async def _work(places: Mapping[Scene, Place]) -> dict[Scene, Work]:
    loads = {scene: await place.watch.books.load() for scene, place in places.items()}
    return {scene: Work(tokens=load.tokens, steps=load.steps) for scene, load in loads.items()}


async def _busy(place: Place) -> bool:
    load = await place.watch.books.load()
    return bool(load.running or load.queued)
