"""The two sides that are compared: ``streamkit serve``, and the plain apps."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import anyio

from streamkit._core import now

from ._books import PlainBooks, StreamkitBooks, Watch
from ._drive import drive
from ._plain import Manner
from ._plan import Aim, Plan, Scene, Visit
from ._results import After, Cut, Run, Totals, cut_of, run_of, totals_of
from ._servers import Footprint, Server
from ._talk import NoAnswer, talk_to
from ._traffic import Place

SETTLE_LIMIT: Final = 5.0  # seconds after which what a server still holds is called a leak
SETTLE_EVERY: Final = 0.05
WARM_UP, CANARY = "demo-warm-up", "demo-canary"
NAMES: Final[Mapping[Manner, str]] = {
    Manner.STOPS: "plain, engine stops",
    Manner.RUNS_ON: "plain, it runs on",
}

Done = Callable[[Visit], object]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What the run on ``streamkit serve`` showed.

    Attributes:
        run: What it cost and gave.
        cuts: The requests that were cut short.
        totals: The books, by server.
        after: The servers when all was over; they have been stopped.
        visits: The traffic as it was, so that it can be had again: what the stalled readers left
            unread before they left is known now.
    """

    run: Run
    cuts: Sequence[Cut]
    totals: Sequence[Totals]
    after: Sequence[After]
    visits: Sequence[Visit]


async def on_streamkit(plan: Plan, servers: Mapping[Scene, Server], done: Done) -> Ours:
    """Run the traffic on ``streamkit serve``, read its books, look for leaks, and stop it."""
    before = await _each(servers, lambda scene: _warm_up(servers[scene]))
    async with AsyncExitStack() as stack:
        books = {
            scene: StreamkitBooks(await stack.enter_async_context(talk_to(server.url)))
            for scene, server in servers.items()
        }
        places = {
            scene: Place(url=servers[scene].url, path="/generate", watch=Watch(books[scene]))
            for scene in servers
        }
        driven = await drive(plan.visits, places, done)
        looks = await _each(servers, lambda scene: _look(scene, books[scene], plan))
    after = await _each(
        servers, lambda scene: _stop(servers[scene], before[scene], looks[scene].after)
    )
    accounts = {id_: each for look in looks.values() for id_, each in look.accounts.items()}
    made = {id_: account["tokens"] for id_, account in accounts.items()}
    cuts = [cut_of(stay, accounts.get(stay.visit.id)) for stay in driven.stays]
    return Ours(
        run=run_of("streamkit", driven, made),
        cuts=[cut for cut in cuts if cut is not None],
        totals=[looks[scene].totals for scene in servers],
        after=[after[scene] for scene in servers],
        visits=[_as_it_was(visit, made.get(visit.id)) for visit in plan.visits],
    )


async def on_plain(visits: Sequence[Visit], name: str, app: Server, done: Done) -> Run:
    """Run the same traffic on a plain app."""
    async with AsyncExitStack() as stack:
        places: dict[Scene, Place] = {}
        for scene in Scene:
            talk = await stack.enter_async_context(talk_to(app.url))
            watch = Watch(PlainBooks(talk, f"/{scene}"))
            places[scene] = Place(url=app.url, path=f"/{scene}/generate", watch=watch)
        driven = await drive(visits, places, done)
        sights = [await place.watch.books.look() for place in places.values()]
    made = {id_: sight.tokens for each in sights for id_, sight in each.items()}
    return run_of(name, driven, made)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    accounts: Mapping[str, Mapping[str, Any]]
    totals: Totals
    after: After


async def _look(scene: Scene, books: StreamkitBooks, plan: Plan) -> _Look:
    """Read everything that one server says of itself when the traffic is over."""
    load, in_flight = await books.load(), await books.in_flight()
    after = After(
        scene=scene,
        in_flight=in_flight,
        running=load.running,
        queued=load.queued,
        left=None,
        canary=await _canary(books),
        status=None,
    )
    ids = [WARM_UP, CANARY, *(visit.id for visit in plan.visits if visit.scene is scene)]
    accounts: dict[str, Mapping[str, Any]] = {}
    for id_ in ids:
        with contextlib.suppress(NoAnswer):  # it was refused; its client has said so
            accounts[id_] = await books.account(id_)
    tokens = sum(account["tokens"] for account in accounts.values())
    totals = totals_of(scene, await books.metrics(), (await books.load()).tokens, tokens)
    return _Look(accounts=accounts, totals=totals, after=after)


async def _warm_up(server: Server) -> Footprint | None:
    """Have one request served; return what the process holds afterwards, as its baseline."""
    async with talk_to(server.url) as talk:
        await StreamkitBooks(talk).generate(WARM_UP)
    return server.footprint()


async def _canary(books: StreamkitBooks) -> float | None:
    began_at = now()
    try:
        await books.generate(CANARY)
    except NoAnswer:
        return None
    return now() - began_at


async def _stop(server: Server, before: Footprint | None, after: After) -> After:
    left = await _settle(server, before)
    return replace(after, left=left, status=await server.stop())


async def _each(scenes: Iterable[Scene], work: Callable[[Scene], Awaitable[T]]) -> dict[Scene, T]:
    """Do it for all of them at once."""
    results: dict[Scene, T] = {}

    async def run(scene: Scene) -> None:
        results[scene] = await work(scene)

    async with anyio.create_task_group() as tasks:
        for scene in scenes:
            tasks.start_soon(run, scene)
    return results


async def _settle(server: Server, before: Footprint | None) -> Footprint | None:
    """Return what the process holds beyond ``before`` once it has let go of what it will."""
    left = _over(server, before)
    with anyio.move_on_after(SETTLE_LIMIT):
        while left is not None and (left.threads or left.sockets or left.files):
            await anyio.sleep(SETTLE_EVERY)
            left = _over(server, before)
    return left


def _over(server: Server, before: Footprint | None) -> Footprint | None:
    current = server.footprint()
    return None if current is None or before is None else current.over(before)


def _as_it_was(visit: Visit, tokens: int | None) -> Visit:
    """A stalled reader leaves a plain server when as much was made for it as there."""
    return replace(visit, tokens=tokens) if visit.aim is Aim.STALLED else visit
