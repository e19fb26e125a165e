"""Goal 7: what those who stay gain when the engine stops for those who leave."""

from __future__ import annotations

import json
import random
import select
import socket
import time
from dataclasses import dataclass, field

from benchmarks import client
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.servers import Server

LEAVING = 0.3
MAX_TOKENS = 150
PROMPT = "once upon a time there was an engine"
SEED = 7
IMPATIENT = 2.0  # seconds in which those leave who do not wait for a token
EVENT = b"\ndata: "  # the line break is that of the chunk, or of the event before
DONE = b"event: done"
LAST = 200  # bytes that hold the last event


@dataclass
class Person:
    """One client.

    Attributes:
        leaves_after: Tokens after which it has had enough; None: it stays.
        leaves_at: Or the second in which it has, wherever its request is then.
    """

    leaves_after: int | None = None
    leaves_at: float | None = None
    received: bytearray = field(default_factory=bytearray)

    @property
    def stays(self) -> bool:
        return self.leaves_after is None and self.leaves_at is None

    @property
    def tokens(self) -> int:
        return self.received.partition(DONE)[0].count(EVENT)

    @property
    def done(self) -> bool:
        return DONE in self.received[-LAST:]


def measure(bench: Bench) -> None:
    """The same crowd before an engine that stops when told, and one that does not."""
    for each in bench.rounds("generate", slow=True):
        for server in each.turns("generate"):
            bench.attempt(_serve_crowd, each.turn, server)


def crowd(count: int) -> list[Person]:
    """Always the same: some leave in the midst of the answer, as many wherever they are."""
    chance = random.Random(SEED)
    people = [Person() for _ in range(count)]
    for number, person in enumerate(chance.sample(people, round(count * LEAVING))):
        if number % 2:
            person.leaves_at = chance.uniform(0, IMPATIENT)
        else:
            person.leaves_after = chance.randrange(1, MAX_TOKENS // 2)
    return people


def _serve_crowd(bench: Bench, turn: str, server: Server) -> None:
    people = crowd(bench.plan.clients)
    cpu = server.cpu()
    seconds = _Crowd(server, people).run()
    cpu = server.cpu() - cpu
    made = _engine(server)["tokens"]
    stayed = [person for person in people if person.stays]
    left = [person for person in people if not person.stays]
    seen = sum(person.tokens for person in people)
    spared = sum(MAX_TOKENS - person.tokens for person in left)
    if missing := [person.tokens for person in stayed if person.tokens != MAX_TOKENS]:
        raise ValueError(f"{len(missing)} who stayed got fewer tokens, for example {missing[0]}")
    name = f"{len(people):,} clients, {LEAVING:.0%} leave"
    rate = sum(person.tokens for person in stayed) / seconds
    bench.add(Figure(f"{name}: survivors", "tokens/s", more=True), server, turn, rate)
    wasted = 100 * (made - seen) / spared
    bench.add(Figure(f"{name}: made after a leave", "% of what was spared"), server, turn, wasted)
    bench.add(Figure(f"{name}: CPU", "s"), server, turn, cpu)


def _engine(server: Server) -> dict[str, int]:
    """Its own books, once nothing runs any more."""
    while True:
        with client.open_request(server.port, client.encode("/v1/engine")) as sock:
            answer = b"".join(iter(lambda: sock.recv(client.READ), b""))
        books = json.loads(answer.partition(b"\r\n\r\n")[2])
        if not books["running"] and not books["queued"]:
            return books
        time.sleep(0.1)


class _Crowd:
    def __init__(self, server: Server, people: list[Person]) -> None:
        body = {"prompt": PROMPT, "max_tokens": MAX_TOKENS, "stream": True}
        self._request = client.encode("/generate", json.dumps(body).encode()).replace(
            b"\r\nHost:", b"\r\nAccept: text/event-stream\r\nHost:", 1
        )
        self._socks = {(sock := client.connect(server.port)).fileno(): sock for _ in people}
        self._people = dict(zip(self._socks, people, strict=True))
        self._impatient = sorted(
            ((person.leaves_at, number) for number, person in self._people.items()
             if person.leaves_at is not None), reverse=True,
        )  # fmt: skip

    def run(self) -> float:
        """Seconds until the last who stayed had its last token."""
        poll = select.epoll()
        began = time.perf_counter()
        for number, sock in self._socks.items():
            sock.sendall(self._request)
            poll.register(number, select.EPOLLIN)
        staying = sum(person.stays for person in self._people.values())
        while staying:
            for number, _ in poll.poll(0.05):
                staying -= self._read(number)
            self._lose_patience(time.perf_counter() - began)
        seconds = time.perf_counter() - began
        for number in list(self._socks):
            self._close(number)
        return seconds

    def _read(self, number: int) -> bool:
        """Whether somebody who stayed is done."""
        person = self._people[number]
        if (sock := self._socks.get(number)) is None:
            return False
        data = sock.recv(client.READ)
        person.received += data
        if not data or person.done:
            self._close(number)
            return person.stays
        if person.leaves_after is not None and person.tokens >= person.leaves_after:
            self._close(number)
        return False

    def _lose_patience(self, seconds: float) -> None:
        while self._impatient and self._impatient[-1][0] <= seconds:
            self._close(self._impatient.pop()[1])

    def _close(self, number: int) -> None:
        if (sock := self._socks.pop(number, None)) is not None:
            self._take_the_rest(self._people[number], sock)
            sock.close()

    def _take_the_rest(self, person: Person, sock: socket.socket) -> None:
        """What lies in the socket has been delivered, whether it is read or not."""
        sock.setblocking(False)
        try:
            person.received += sock.recv(client.READ)
        except OSError:
            return
