"""How a client over HTTP/1.1 comes to each phase, to the byte, and how it goes from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from streamkit._core import now
from streamkit.testing._clients import LeavingClient
from streamkit.testing._sockets import RECEIVE_SIZE, Leave

from ._seen import Ask, Seen
from ._staying import Stay, read_while

SLOW_READS: Final = 10  # in each second
_PHASES_IN_THE_REQUEST: Final = frozenset({"connecting", "headers", "body"})


class Client:
    """One request on one connection."""

    __slots__ = ("_ask", "_connection", "_seen", "_taken")

    def __init__(self, connection: LeavingClient, ask: Ask, seen: Seen) -> None:
        self._connection = connection
        self._ask = ask
        self._seen = seen
        self._taken = 0  # bytes of an incomplete chunk that `seen` has already

    # -- coming to a phase -----------------------------------------------------------------------

    async def come_to(self, phase: str, at: float | None) -> bool:
        """Go on until the phase; False if the answer ended before.

        Raises:
            OSError: The server has ended the connection, or is silent for too long.
            BadResponse: It sent what is not HTTP/1.1.
        """
        if phase in _PHASES_IN_THE_REQUEST:
            await self._send_part(phase, at)
            return True
        await self._send_request()
        self._seen.sent_at = now()
        if phase == "first_byte":
            return True
        if phase == "queued":
            await self._read_while(lambda: anyio.sleep(at or 0))
            return True
        return await self._read_until(phase, int(at or 0))

    async def _send_request(self) -> None:
        ask = self._ask
        await self._connection.send_request(
            ask.method, ask.target, json=ask.json, headers=ask.headers
        )

    async def _send_part(self, phase: str, at: float | None) -> None:
        head, body = self._ask.encode()
        if phase == "headers":
            head, body = head[: int(at or len(head) // 2)], b""
        if phase != "connecting":
            await self._connection.send(head + body[: int(at or len(body) // 2)])

    async def _read_until(self, phase: str, at: int) -> bool:
        seen, response = self._seen, self._connection.response
        enough: dict[str, Callable[[], bool]] = {
            "byte": lambda: len(seen.body) >= at,
            "event": lambda: len(seen.events) >= at,
            "code_point": lambda: is_cut(bytes(seen.body[-4:])),
            "last_byte": lambda: response.missing == 1,
            "after_end": lambda: response.finished,
        }
        # To the byte, where a byte decides; what else came stays in the kernel, unread.
        most = RECEIVE_SIZE if phase in {"event", "after_end"} else 1
        while not enough[phase]():
            if not await self._read(most):
                break
        return enough[phase]()

    async def _read(self, most: int = RECEIVE_SIZE) -> bool:
        """Take what came; False at the end of the answer."""
        response = self._connection.response
        more = await self._connection.take(most)
        if response.head is not None:
            self._seen.status = response.head.status
        elif response.closed:
            raise ConnectionError(f"the server closed ({self._connection.cut_by}) with no answer")
        while response.chunks:
            self._take(response.chunks.popleft(), whole=True)
        self._take(response.partial, whole=False)
        self._seen.complete = response.finished
        return more

    def _take(self, chunk: bytes, *, whole: bool) -> None:
        new = chunk[self._taken :]
        self._taken = 0 if whole else len(chunk)
        if new:
            self._seen.take(new, now())

    # -- going ---------------------------------------------------------------------------------

    async def leave(self, way: str, amount: float | None, stay: Stay) -> None:
        """Go in that way; raises OSError if the server was faster."""
        self._seen.left_at = now()
        match way:
            case "half_close":
                await self._connection.leave(Leave.HALF_CLOSE)
                await self._read_while(stay)
            case "stop_reading" | "vanish":
                await self._connection.leave(Leave(way))
                await stay()
            case "slow":
                await self._read_while(stay, max(1, int((amount or 0) / SLOW_READS)))
                await self._connection.leave(Leave.RST)
            case "pipeline":
                await self._send_request()
                await self._connection.leave(Leave.FIN)
            case "stay":
                await self._connection.leave(Leave.FIN)
            case "storm":
                await self._connection.leave(Leave.RST)
            case _:
                await self._connection.leave(Leave(way))
                self._seen.left(self._connection.left_at)

    async def _read_while(self, stay: Stay, slowly: int = 0) -> None:
        """Read until ``stay`` returns or the answer ends; so many bytes at a time, if slowly."""

        async def read() -> None:
            while await self._read(slowly or RECEIVE_SIZE):
                if slowly:
                    await anyio.sleep(1 / SLOW_READS)

        await read_while(stay, read)

    def __repr__(self) -> str:
        return f"<Client {self._connection!r}>"


def is_cut(tail: bytes) -> bool:
    """Whether UTF-8 that ends with these bytes ends inside of a character."""
    for back, byte in enumerate(reversed(tail), 1):
        if byte < 0x80:
            return False
        if byte >= 0xC0:
            width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back < width
    return False
