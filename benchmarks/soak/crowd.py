"""Who comes when, asks what and does what to it: all of it from a seed; and what they saw."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import anyio

from streamkit.testing import Ask, Fault, Seen, draw_faults, visit

PROMPTS: Final = tuple(
    f"tell me about {what} " * 3 for what in ["rain", "tea", "cats", "time", "sand"]
)
LONGEST: Final = 120  # tokens of one who stays
ENDLESS: Final = 2_000  # tokens of one who leaves: nobody waits for the end of it
SHORT: Final = 8  # tokens, where one leaves at the end
TIMEOUT: Final = 120.0  # seconds that one who stays may wait for a slot
NEEDS_THE_END: Final = frozenset({"last_byte", "after_end"})
IN_THE_ANSWER: Final = frozenset({"byte", *NEEDS_THE_END})
STAYS: Final = Fault.parse("stay")
BURSTS: Final = 5  # times that many come at once
IN_BURSTS: Final = 0.4  # of all clients
IN_STORMS: Final = 0.05  # of those with a fault: they come again at once


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to ask, and where the text is in what comes."""

    name: str
    path: str
    body: Callable[[str, int], Mapping[str, Any]]
    text: Callable[[Seen], str]
    end: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    events: bool = False
    streams: bool = True
    family: str = "prompt"


def _generate(prompt: str, tokens: int) -> Mapping[str, Any]:
    return {"prompt": prompt, "max_tokens": tokens, "stream": True}


def _not_streaming(prompt: str, tokens: int) -> Mapping[str, Any]:
    return {"prompt": prompt, "max_tokens": tokens}


def _chat(prompt: str, tokens: int) -> Mapping[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"messages": messages, "max_tokens": tokens, "stream": True}


def _raw(seen: Seen) -> str:
    return seen.body.decode()


def _of_events(seen: Seen) -> str:
    *pieces, last = seen.events
    tokens = json.loads(last.data)["tokens"] if last.event == "done" else "no end"
    return f"{''.join(piece.data for piece in pieces)}|{tokens}"


def _of_json(seen: Seen) -> str:
    answer = json.loads(seen.body)
    return f"{answer['text']}|{answer['usage']['completion_tokens']}"


def _of_chat(seen: Seen) -> str:
    *pieces, last = [event.data for event in seen.events]
    choices = [json.loads(piece)["choices"][0] for piece in pieces]
    said = "".join(choice["delta"].get("content", "") for choice in choices)
    return f"{said}|{choices[-1]['finish_reason']}|{last}"


_SSE: Final = {"accept": "text/event-stream"}
_RAW: Final = Kind("raw", "/generate", _generate, _raw)
_EVENTS: Final = Kind("events", "/generate", _generate, _of_events, "|{}", _SSE, events=True)
ENGINE: Final = (
    _RAW,
    _EVENTS,
    Kind("json", "/generate", _not_streaming, _of_json, "|{}", streams=False),
    Kind(
        "chat",
        "/v1/chat/completions",
        _chat,
        _of_chat,
        "|length|[DONE]",
        events=True,
        family="chat",
    ),
)
"""How an engine is asked."""

MODEL: Final = (replace(_RAW, path="/predict"), replace(_EVENTS, path="/predict"))
"""How a model class is asked."""


@dataclass(frozen=True, slots=True)
class Client:
    """One of them: when it comes, after the start (seconds), and what it does."""

    at: float
    kind: Kind
    prompt: str
    tokens: int
    fault: Fault

    @property
    def stays(self) -> bool:
        return self.fault.way == "stay"


def plan(seed: int, count: int, seconds: float, kinds: tuple[Kind, ...]) -> list[Client]:
    """The same seed gives the same clients, in the order in which they come."""
    dice = random.Random(f"soak {seed}")
    drawn = draw_faults(seed, count)
    bursts = [seconds * (number + 0.5) / BURSTS for number in range(BURSTS)]
    clients: list[Client] = []
    for number in range(count):
        at = dice.choice(bursts) if dice.random() < IN_BURSTS else dice.uniform(0, seconds)
        kind, fault = dice.choice(kinds), STAYS if number % 2 else drawn[number]
        if number % 2 == 0 and dice.random() < IN_STORMS:
            fault = Fault("storm", fault.phase, 5, fault.at)
        if fault.phase == "event" and not kind.events:
            fault = Fault(fault.way, "byte", fault.amount, 1)
        if fault.phase == "code_point":  # the words are ASCII
            fault = Fault(fault.way, "byte", fault.amount, 2)
        tokens = ENDLESS
        if fault.way == "stay":
            tokens = dice.randint(1, LONGEST)
        elif fault.phase in (NEEDS_THE_END if kind.streams else IN_THE_ANSWER):
            tokens = SHORT
        clients.append(Client(at, kind, dice.choice(PROMPTS), tokens, fault))
    return sorted(clients, key=lambda client: client.at)


@dataclass
class Crowd:
    """All clients of a run.

    Attributes:
        at_once: Of them that may be there.
        stay: Seconds, of one who stops reading, reads slowly or vanishes.
        seen: What each of those saw who stayed.
        most: Of them that were there at once.
        visits: Times that somebody came; more than clients, because of storms.
    """

    url: str
    at_once: int
    stay: float
    seen: list[tuple[Client, Seen]] = field(default_factory=list)
    done: int = 0
    here: int = 0
    most: int = 0
    visits: int = 0

    async def come(self, clients: list[Client]) -> None:
        """Let all of them come, each at its time, or when there is room."""
        began_at, room = anyio.current_time(), anyio.Semaphore(self.at_once)
        async with anyio.create_task_group() as tasks:
            for client in clients:
                await anyio.sleep_until(began_at + client.at)
                await room.acquire()
                tasks.start_soon(self._be, client, room)

    async def _be(self, client: Client, room: anyio.Semaphore) -> None:
        self.here += 1
        self.most = max(self.most, self.here)
        try:
            seen = await visit(ask_of(self.url, client), client.fault, stay=self._stay)
        finally:
            self.here -= 1
            self.done += 1
            room.release()
        self.visits += seen.visits
        if client.stays:
            self.seen.append((client, seen))

    async def _stay(self) -> None:
        await anyio.sleep(self.stay)


def ask_of(url: str, client: Client) -> Ask:
    """Its request."""
    return Ask(
        url=url + client.kind.path,
        json=client.kind.body(client.prompt, client.tokens),
        headers=client.kind.headers,
        timeout=TIMEOUT,
    )


async def undisturbed(url: str, kinds: tuple[Kind, ...]) -> dict[tuple[str, str], list[str]]:
    """The words of each prompt, by family: the longest answer, asked for while nobody is there."""
    words: dict[tuple[str, str], list[str]] = {}
    for kind in kinds:
        for prompt in PROMPTS:
            if (kind.family, prompt) not in words:
                client = Client(0.0, kind, prompt, LONGEST, STAYS)
                seen = await visit(ask_of(url, client), STAYS)
                words[kind.family, prompt] = kind.text(seen).partition("|")[0].split(" ")
    return words


def expected(client: Client, words: Mapping[tuple[str, str], list[str]]) -> str:
    """What one who stays should get: the beginning of the longest answer, and the right end."""
    said = " ".join(words[client.kind.family, client.prompt][: client.tokens])
    return said + client.kind.end.format(client.tokens)
