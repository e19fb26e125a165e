"""The clients of a demo: each comes at its time, asks, and stays or leaves as it was planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from streamkit._core import Phase, now

from ._books import Sight, Watch
from ._client import Client
from ._plan import Aim, Leave, Scene, Visit

LIMIT: Final = 30.0  # seconds for one client, from its arrival to its end
BLOCKED: Final = 0.25  # seconds in one send(): it is blocked, and not just sending
_WAITING: Final = frozenset({Phase.READING, Phase.QUEUED})
_PAST: Final[Mapping[Aim, frozenset[Phase]]] = {
    Aim.QUEUED: frozenset({Phase.QUEUED, Phase.PREFILL, Phase.DECODE, Phase.SENDING}),
    Aim.PREFILL: frozenset({Phase.PREFILL, Phase.DECODE, Phase.SENDING}),
    Aim.WHOLE: frozenset({Phase.DECODE, Phase.SENDING}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """What became of one client.

    Attributes:
        visit: What it had planned.
        began_at: When it came, on this process's clock.
        ended_at: When it was done.
        left_at: When it left, or None if nothing of that went over the wire.
        whole: Whether it got its whole answer.
        error: What went wrong with the client itself, or empty.
    """

    visit: Visit
    began_at: float
    ended_at: float
    left_at: float | None = None
    whole: bool = False
    error: str = ""

    @property
    def seconds(self) -> float:
        """How long it was there."""
        return self.ended_at - self.began_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the clients of a scene go.

    Attributes:
        url: The server.
        path: The route there.
        watch: Where its books are seen.
    """

    url: str
    path: str
    watch: Watch


async def run_traffic(
    visits: Sequence[Visit], places: Mapping[Scene, Place], done: Callable[[Visit], object]
) -> list[Stay]:
    """Send all clients; return what became of them when the last one is done.

    Cancellation:
        All of them close their sockets.
    """
    stays: list[Stay] = []
    first = [visit for visit in visits if visit.first]

    async def come(visit: Visit) -> None:
        watch = places[visit.scene].watch
        with anyio.move_on_after(LIMIT):
            for each in first if not visit.first else ():
                if each.scene is visit.scene:
                    await watch.until(each.id, lambda sight: sight.phase not in _WAITING)
        await anyio.sleep(visit.after)
        stays.append(await _be(visit, places[visit.scene]))
        done(visit)

    async with anyio.create_task_group() as clients:
        for place in places.values():
            clients.start_soon(place.watch.run)
        async with anyio.create_task_group() as visitors:
            for visit in visits:
                visitors.start_soon(come, visit)
        clients.cancel_scope.cancel()
    return stays


async def _be(visit: Visit, place: Place) -> Stay:
    """One client, from its arrival to its end, which comes in any case."""
    began_at = now()
    client: Client | None = None
    error = f"not done within {LIMIT:g} s"
    with anyio.move_on_after(LIMIT):
        try:
            client = await Client.connect(place.url, small_buffers=visit.aim is Aim.STALLED)
            error = await _exchange(client, visit, place)
        except OSError as failure:
            error = f"{type(failure).__name__}: {failure}"
        finally:
            if client is not None:
                client.close()
    left_at = None if client is None or visit.leave is None else client.left_at
    whole = client is not None and visit.leave is None and client.whole
    return Stay(
        visit=visit,
        began_at=began_at,
        ended_at=now(),
        left_at=left_at,
        whole=whole,
        error=error,
    )


async def _exchange(client: Client, visit: Visit, place: Place) -> str:
    """Return what went wrong, or nothing."""
    body = {"prompt": visit.prompt, "max_tokens": visit.max_tokens, "stream": visit.stream}
    await client.ask(place.path, visit.id, body)
    if visit.leave is None:
        while await client.read():
            pass
        return "" if client.whole else f"its answer was cut short: {client.status or 'no status'}"
    if visit.events:
        while client.events < visit.events:
            if not await client.read():
                return f"its answer ended after {client.events} events: {client.status}"
        await anyio.sleep(visit.pause)
    else:
        await place.watch.until(visit.id, lambda sight: _is_time(visit, sight))
    if visit.leave is Leave.STOP_READING:
        await place.watch.until(visit.id, lambda _: False)  # until it has ended
    else:
        await client.leave(visit.leave)
    return ""


def _is_time(visit: Visit, sight: Sight) -> bool:
    if visit.aim is Aim.STALLED and visit.tokens is None:
        return sight.blocked >= BLOCKED
    if visit.aim in _PAST and sight.phase not in _PAST[visit.aim]:
        return False
    return sight.tokens >= (visit.tokens or 0)
