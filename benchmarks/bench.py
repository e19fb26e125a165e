"""One run of the suite: how much of everything, who takes part, and whose turn it is."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.environments import CannotInstall, environment
from benchmarks.figures import Figure, Figures
from benchmarks.noise import Watch
from benchmarks.peers import BASELINES, PEERS, Peer
from benchmarks.servers import Server, running


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        rounds: In each, every contender has fresh servers and one turn.
        seconds: Of each download.
        leaves: In each phase and round.
        idle: Streams that are held.
        watch: Seconds in which their CPU is looked at.
        crowd: Streams that are open at once.
        calls: Requests in each round.
        starts: Processes whose start is timed.
        sizes: Sizes that growth is followed through, from small to large.
        slow_rounds: Of what takes long, or differs little: idle streams, growth, the whole system.
        clients: Of the whole system.
    """

    rounds: int = 5
    seconds: float = 1.0
    leaves: int = 100
    idle: int = 1_000
    watch: float = 5.0
    crowd: int = 10_000
    calls: int = 3_000
    starts: int = 20
    clients: int = 1_000
    sizes: int = 5
    slow_rounds: int = 3


LONG = Plan()
SHORT = Plan(
    rounds=3, seconds=0.3, leaves=30, watch=2.0, calls=1_000, starts=5, sizes=4, slow_rounds=1
)


@dataclass(frozen=True)
class Round:
    """Servers that run side by side.

    Attributes:
        turn: Its name: values of one turn are compared with each other.
        servers: In the order of the peers.
        first: How far that order is turned: A B C, then B C A, …
    """

    turn: str
    servers: list[Server]
    first: int

    def turns(self, shape: str) -> Iterator[Server]:
        """Those that serve this shape, one after the other."""
        able = [server for server in self.servers if shape in server.peer.shapes]
        first = self.first % max(1, len(able))
        yield from (*able[first:], *able[:first])


@dataclass
class Bench:
    """What all measures share."""

    plan: Plan
    watch: Watch
    peers: Sequence[str]
    figures: Figures = field(default_factory=Figures)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def rounds(
        self, *shapes: str, among: Sequence[str] = (), slow: bool = False
    ) -> Iterator[Round]:
        """Fresh servers for all that have one of the shapes, as often as the plan says."""
        count = self.plan.slow_rounds if slow else self.plan.rounds
        for group in self.groups(shapes, among):
            label = next((peer.group for peer in group if peer.group), "")
            for number in range(count):
                self.watch.look()
                able = [peer for peer in group if peer.name not in self.left_out]
                with running(able, self.left_out) as servers:
                    yield Round(f"{label}{number}", servers, number)

    def groups(self, shapes: Sequence[str], among: Sequence[str] = ()) -> Iterator[list[Peer]]:
        """Who takes turns with whom; the heavy ones each with the baselines alone."""
        able = [
            peer
            for name, peer in PEERS.items()
            if name in self.peers
            and not peer.shapes.isdisjoint(shapes)
            and (not among or name in among)
        ]
        able = [peer for peer in able if self._installed(peer)]
        if light := [peer for peer in able if not peer.group]:
            yield light
        baselines = [peer for peer in able if peer.name in BASELINES]
        for _, heavy in itertools.groupby(able, key=lambda peer: peer.group):
            if (members := list(heavy))[0].group:
                yield [*baselines, *members]

    def attempt(self, measure: Callable[..., None], turn: str, server: Server, *more: Any) -> None:
        """Measure; a contender that fails at it is left out from then on, the others go on."""
        if server.peer.name in self.left_out:
            return
        try:
            measure(self, turn, server, *more)
        except (ValueError, OSError) as error:  # a wrong answer, or none
            self.left_out[server.peer.name] = f"{measure.__name__.strip('_')} {more}: {error!r}"

    def add(self, figure: Figure, server: Server | str, turn: str, value: float) -> None:
        """Note a value, and say it: a run of minutes should show that it lives."""
        name = server if isinstance(server, str) else server.peer.name
        self.figures.add(figure, name, turn, value)
        said = f"  {figure.name:46} {name:22} {value:14,.3f} {figure.unit}"
        print(said, file=sys.stderr, flush=True)

    def _installed(self, peer: Peer) -> bool:
        if peer.name in self.left_out:
            return False
        try:
            environment(peer.environment)
        except CannotInstall as error:
            self.left_out[peer.name] = str(error)
        return peer.name not in self.left_out
