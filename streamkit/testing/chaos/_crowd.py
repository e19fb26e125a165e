"""Many at once: a crowd of which half stays, and a burst that leaves all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio

from streamkit._core import now
from streamkit.testing._faults import Fault, Seen, visit

from ._alone import Limits
from ._plan import NEEDS_THE_END, Client, Plan
from ._target import SHORT, Target
from ._watch import Stop, Watch

_LONGEST_STAY: Final = 1.0  # seconds; of one who stays badly in the crowd
CANARY: Final = 1  # tokens
_HELD_UP: Final = 2.0  # times as long as on an idle server: the load is felt
_HELD_UP_BY: Final = 0.05  # seconds more: not noise
# Whether an answer has begun depends on the server's slots; that the request was sent does not.
_UNTIL_TOLD: Final = Fault("stop_reading", "first_byte")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """one client of the crowd, and whether it got what it should have."""

    client: Client
    seen: Seen
    text: str
    expected: str | None  # None: no two baseline answers were equal

    @property
    def whole(self) -> bool:
        """Whether a survivor's answer is complete, and the one that was expected."""
        seen = self.seen
        complete = seen.complete and seen.status == 200 and seen.error is None
        return complete and self.expected in {None, self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """What became of a crowd.

    Attributes:
        guests: Those who came.
        planned: How many would have come, without a limit to its duration.
        stop: How the server came to rest after the last one; None: not within the bound.
    """

    guests: tuple[Guest, ...]
    planned: int
    stop: Stop | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Many long requests, all dropped at the same time, and a short request before and after.

    Attributes:
        clients: How many.
        idle: Seconds that the short request took on an idle server.
        loaded: The same beside the others; None: it was not answered.
        after: The same once they had gone.
        stop: How the server came to rest; None: not within the bound, or it does not say.
    """

    clients: int
    idle: float
    loaded: float | None
    after: float | None
    stop: Stop | None

    @property
    def felt(self) -> bool:
        """Whether the load held the short request up, so that its absence can be felt as well."""
        held_up = max(self.idle * _HELD_UP, self.idle + _HELD_UP_BY)
        return self.loaded is None or self.loaded > held_up

    @property
    def relieved(self) -> bool:
        """Whether the short request was served as if nobody else had been there."""
        return self.after is not None and self.after <= max(
            self.idle * _HELD_UP, self.idle + _HELD_UP_BY
        )


class Together:
    """Lets many come at once."""

    __slots__ = ("_expected", "_limits", "_long", "_target", "_watch")

    def __init__(
        self,
        target: Target,
        watch: Watch | None,
        limits: Limits,
        *,
        long: int,
        expected: dict[int, str] | None,
    ) -> None:
        self._target = target
        self._watch = watch
        self._limits = limits
        self._long = long
        self._expected = expected

    async def crowd(self, plan: Plan, duration: float, done: Callable[[], object]) -> Crowd:
        """Let all clients of the plan come, so many at a time, until the duration is over."""
        base = await self._base()
        guests: list[Guest] = []
        room = anyio.Semaphore(plan.burst)
        until = now() + duration

        async def come(client: Client) -> None:
            async with room:
                if now() < until:
                    guests.append(await self._visit(client))
                done()

        async with anyio.create_task_group() as tasks:
            for client in plan.clients:
                tasks.start_soon(come, client)
        return Crowd(
            guests=tuple(guests), planned=len(plan.clients), stop=await self._rest(base, now())
        )

    async def burst(self, clients: int) -> Burst:
        """Let so many ask for long answers, and leave at the same time."""
        base = await self._base()
        idle = await self._canary() or self._limits.stop
        leave = anyio.Event()
        waiting = [anyio.Event() for _ in range(clients)]
        loaded: float | None = None
        left_at = now()

        async def come(number: int) -> None:
            async def stay() -> None:
                waiting[number].set()
                await leave.wait()

            await visit(self._target.ask(number, self._long), _UNTIL_TOLD, stay=stay)
            waiting[number].set()

        async with anyio.create_task_group() as tasks:
            for number in range(clients):
                tasks.start_soon(come, number)
            for event in waiting:
                await event.wait()
            loaded = await self._canary()
            left_at = now()
            leave.set()
        stop = await self._rest(base, left_at)
        return Burst(
            clients=clients, idle=idle, loaded=loaded, after=await self._canary(), stop=stop
        )

    async def _visit(self, client: Client) -> Guest:
        await anyio.sleep(client.pause)
        short = client.stays or client.fault.phase in NEEDS_THE_END
        ask = self._target.ask(client.prompt, SHORT if short else self._long)
        seen = await visit(ask, client.fault, stay=self._stay)
        expected = self._expected.get(client.prompt) if self._expected else None
        return Guest(client=client, seen=seen, text=self._target.text_of(seen), expected=expected)

    async def _canary(self) -> float | None:
        """Seconds that a short request takes; None: it was not answered within the bound."""
        began_at = now()
        with anyio.move_on_after(self._limits.stop):
            seen = await self._target.answer(0, CANARY)
            return now() - began_at if seen.complete and seen.status == 200 else None
        return None

    async def _base(self) -> float:
        count = await self._watch.latest() if self._watch else None
        return count.running if count else 0.0

    async def _rest(self, base: float, since: float) -> Stop | None:
        if self._watch is not None:
            return await self._watch.until_rest(base, since, self._limits.stop)
        return None

    async def _stay(self) -> None:
        await anyio.sleep(min(self._limits.stay, _LONGEST_STAY))

    def __repr__(self) -> str:
        return f"<Together at {self._target!r}>"
