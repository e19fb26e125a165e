"""One fault at a time: a client comes, does it, and the server is watched until it rests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import anyio

from streamkit._core import now
from streamkit.testing._faults import Fault, Seen, visit

from ._plan import NEEDS_THE_END, NO_REQUEST, STAYS_BADLY
from ._target import SHORT, Target
from ._watch import Watch

OUTLASTS: Final = 3.0  # times the bound: how long an answer must last for a run-on to be seen
_FEWEST: Final = 64  # tokens of a long answer
_MOST: Final = 100_000
_PATIENCE: Final = 4.0  # times the bound: how long one that ran on is waited for

State: TypeAlias = Literal["stopped", "ran on", "unseen", "unreached", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        stop: From a client's leaving to the server at rest.
        stay: How long one stays that stops reading, reads slowly or vanishes.
    """

    stop: float
    stay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What became of one fault.

    Attributes:
        fault: Which.
        state: ``stopped`` within the bound, or it ``ran on``; ``unseen``: nobody can say;
            ``unreached``: the answer ended before the phase; ``failed``: no answer at all.
        seen: What the client saw; None: skipped.
        after: Seconds from its leaving, or the end of its connection, to the server at rest.
        noticed: Of one who stays badly: whether the server was at rest before it was gone.
        tokens: Made after it had gone, at most; of one that was not seen to end, until then.
        note: What else there is to say.
    """

    fault: str
    state: State
    seen: Seen | None = None
    after: float | None = None
    noticed: bool | None = None
    tokens: float | None = None
    note: str = ""


class Alone:
    """Tries faults one by one."""

    __slots__ = ("_limits", "_long", "_sample", "_target", "_watch")

    def __init__(self, target: Target, watch: Watch | None, limits: Limits, sample: Seen) -> None:
        self._target = target
        self._watch = watch
        self._limits = limits
        self._sample = sample
        self._long = long_answer(sample, limits.stop)

    @property
    def long(self) -> int:
        """Tokens of an answer that outlasts the bound, by the speed of the sample."""
        return self._long

    async def control(self) -> bool:
        """Whether a client that stays is seen running for all of the bound.

        If not, a server that ran on would look like one that stopped.
        """
        assert self._watch is not None
        base = await self._base()
        fault = Fault("fin", "queued", None, self._limits.stop)
        seen = await visit(self._target.ask(0, self._long), fault)
        left_at = seen.left_at or now()
        before = [count for count in self._watch.counts if count.at <= left_at]
        await self._watch.until_rest(base, left_at, self._limits.stop * _PATIENCE)
        return not seen.complete and bool(before) and before[-1].running > base

    async def run(self, number: int, fault: Fault) -> Cell:
        """Try one."""
        if why := self._why_not(fault):
            return Cell(fault=str(fault), state="skipped", note=why)
        tokens = SHORT if fault.phase in NEEDS_THE_END else self._long
        base = await self._base() if self._watch else 0.0
        seen = await visit(self._target.ask(number, tokens), fault, stay=self._stay)
        if seen.error is not None and seen.left_at is None:
            return Cell(fault=str(fault), state="failed", seen=seen, note=seen.error)
        if not seen.reached:
            return Cell(
                fault=str(fault), state="unreached", seen=seen, note="the answer ended before"
            )
        return await self._judge(fault, seen, base)

    async def _judge(self, fault: Fault, seen: Seen, base: float) -> Cell:
        name = str(fault)
        if self._watch is None:
            return Cell(fault=name, state="unseen", seen=seen, note="the server has no counters")
        badly = fault.way in STAYS_BADLY
        gone_at = (seen.ended_at if badly else seen.left_at) or now()
        noticed = None
        if badly and seen.left_at is not None:
            early = [count for count in self._watch.counts if seen.left_at <= count.asked_at]
            rested = any(count.at <= gone_at and count.running <= base for count in early)
            # A half-closed connection that ends early was ended by the server.
            noticed = rested or gone_at - seen.left_at < self._limits.stay
        stop = await self._watch.until_rest(base, gone_at, self._limits.stop)
        if stop is None:
            # The next one would be taken for this one.
            rest = await self._watch.until_rest(base, gone_at, self._limits.stop * _PATIENCE)
            note = "" if rest else "and was not seen to end"
            return Cell(
                fault=name,
                state="ran on",
                seen=seen,
                after=rest.after if rest else None,
                tokens=rest.tokens if rest else self._watch.made(gone_at),
                note=note,
            )
        note = "nothing was asked for" if fault.phase in NO_REQUEST else ""
        return Cell(
            fault=name,
            state="stopped",
            seen=seen,
            after=stop.after,
            noticed=noticed,
            tokens=stop.tokens,
            note=note,
        )

    def _why_not(self, fault: Fault) -> str:
        sample = self._sample
        if fault.phase == "event" and not sample.events:
            return "its answers are no server-sent events"
        if fault.phase == "code_point" and bytes(sample.body).isascii():
            return "its answers are ASCII"
        return ""

    async def _base(self) -> float:
        assert self._watch is not None
        count = await self._watch.latest()
        return count.running if count else 0.0

    async def _stay(self) -> None:
        await anyio.sleep(self._limits.stay)

    def __repr__(self) -> str:
        return f"<Alone {self._target!r}, {self._long} tokens>"


def long_answer(sample: Seen, bound: float) -> int:
    """Tokens whose making lasts OUTLASTS times the bound, at the speed of a short answer."""
    began_at, ended_at = sample.sent_at or sample.began_at, sample.ended_at or now()
    if len(sample.events) > 2 and sample.first_byte_at is not None:
        began_at = sample.first_byte_at
    seconds = max(ended_at - began_at, 1e-3)
    return max(_FEWEST, min(_MOST, int(SHORT / seconds * bound * OUTLASTS)))
