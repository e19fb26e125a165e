"""How an upstream is proved to have stopped, where there is a way: two of them, in a table."""

from __future__ import annotations

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from statistics import median
from typing import ClassVar, Final

import anyio

from streamkit._core import Phase, now
from streamkit.engines._base import Chunk, Proof
from streamkit.engines._request import GenerationRequest, Message
from streamkit.errors import EngineFailed, RequestRefused

from ._http import Http
from ._words import CHAT, TEXT, Answer, body_of, read

logger = logging.getLogger("streamkit.engines")

LOOK_EVERY: Final = 0.01  # seconds; then ever more rarely, up to …
LOOK_AT_MOST: Final = 0.25
CANARIES: Final = 3  # whose median says how fast the idle upstream is
SLOWER: Final = 3.0  # times that, plus …
SLACK: Final = 0.1  # … so many seconds, and a canary is late
LONG_TOKENS: Final = 1000
LONG: Final = "Count from one to one thousand, in words, one number in each line."


class Prover(ABC):
    """A way to prove it.

    Args:
        http: The upstream.
        model: The model to ask for.
    """

    proof: ClassVar[Proof]

    def __init__(self, http: Http, model: str | None) -> None:
        self._http = http
        self._model = model

    async def prepare(self) -> float:
        """Find out whether it can prove anything here.

        Returns:
            Seconds that a proof may take, at an upstream that stops at once.

        Raises:
            EngineFailed: It cannot.
        """
        return 0.0

    @abstractmethod
    async def wait_gone(self, request_id: str, path: str) -> None:
        """Return when the upstream no longer works on a request whose connection is closed."""


class Canary(Prover):
    """One token from the only slot: it cannot come before that slot is free.

    That is all that can be known of a server whose books are closed, and only where there is one
    slot: a canary takes any that is free, and then says nothing of the others. So it is tried out
    first, against a request that runs.
    """

    proof = Proof.FENCED

    def __init__(self, http: Http, model: str | None) -> None:
        super().__init__(http, model)
        self._one = anyio.Lock()  # a second would be in the way of the first

    async def wait_gone(self, request_id: str, path: str) -> None:
        """Return when a one-token request on the same route was answered."""
        async with self._one:
            await self._sing(path)

    async def prepare(self) -> float:
        """Measure how soon it comes on the idle upstream, and see that it is late on a busy one."""
        path = await self._find_route()
        idle = [await self._time(path) for _ in range(CANARIES)]
        bound = SLOWER * median(idle) + SLACK
        await self._try_out(path, bound)
        began = now()
        await self._sing_when_there_is_room(path)
        if (took := now() - began) > bound:
            logger.warning(
                "the upstream was busy for %.3g s after the connection of a request was closed; "
                "an idle one answers in %.3g s: it seems to ignore clients that leave",
                took,
                median(idle),
            )
        return bound

    async def _find_route(self) -> str:
        """Which of the two routes there is; the first request is a warm-up as well."""
        try:
            await self._sing(TEXT)
        except EngineFailed:
            await self._sing(CHAT)
            return CHAT
        return TEXT

    async def _time(self, path: str) -> float:
        began = now()
        await self._sing(path)
        return now() - began

    async def _try_out(self, path: str, bound: float) -> None:
        begun, ended = anyio.Event(), anyio.Event()
        sang = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run_long, path, begun, ended)
            await begun.wait()
            with anyio.move_on_after(bound):
                await self._sing(path)
                sang = True
            with anyio.move_on_after(bound if sang else 0):
                await ended.wait()
            tasks.cancel_scope.cancel()
        if sang and not ended.is_set():
            raise EngineFailed(
                "the upstream answers a second request while the first one runs: it has more than "
                "one slot, so that a canary proves nothing; leave out proof=canary"
            )
        if sang:
            logger.warning(
                "the answer of the upstream ended too soon to show whether a canary has to wait "
                "for it: that there is one slot is taken on trust"
            )

    async def _run_long(self, path: str, begun: anyio.Event, ended: anyio.Event) -> None:
        try:
            async with aclosing(self._ask(path, LONG, LONG_TOKENS)) as chunks:
                async for _ in chunks:
                    begun.set()
            ended.set()
        finally:
            begun.set()

    async def _sing_when_there_is_room(self, path: str) -> None:
        while True:
            try:
                await self._sing(path)
                return
            except RequestRefused as refused:  # it may know itself that its slot is lost
                await anyio.sleep(max(LOOK_AT_MOST, refused.retry_after))

    async def _sing(self, path: str) -> None:
        async with aclosing(self._ask(path, "Hi", 1)) as chunks:
            async for _ in chunks:
                pass

    async def _ask(self, path: str, prompt: str, tokens: int) -> AsyncGenerator[Chunk]:
        messages = (Message("user", prompt),) if path == CHAT else ()
        request = GenerationRequest(prompt=prompt, messages=messages)
        body = body_of(request, self._model, tokens)
        answer = Answer(1)
        async with self._http.stream(path, body, uuid.uuid4().hex) as pieces:
            async for chunk in read(pieces, answer):
                yield chunk  # noqa: ASYNC119 - closed where it is read
        if not answer.finished:
            raise EngineFailed("the upstream ended a canary's answer without a finish reason")


class Books(Prover):
    """A streamkit behind the streamkit: it names the request, and how far its own proof is."""

    proof = Proof.OBSERVED

    async def wait_gone(self, request_id: str, path: str) -> None:
        """Return when its books say that the request has ended, which they do when it is proved."""
        pause = LOOK_EVERY
        while not await self._ended(request_id):
            await anyio.sleep(pause)
            pause = min(2 * pause, LOOK_AT_MOST)

    async def _ended(self, request_id: str) -> bool:
        # One that is not known may still be on its way: that proves nothing.
        account = await self._http.get(f"/requests/{request_id}")
        return account is not None and account.get("phase") in _ENDED


_ENDED: Final = frozenset({Phase.FINISHED, Phase.CANCELLED, Phase.FAILED})

PROVERS: Final[Mapping[str, Callable[[Http, str | None], Prover]]] = {
    "canary": Canary,
    "streamkit": Books,
}
