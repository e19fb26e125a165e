"""How a client over HTTP/2 comes to each phase of its one stream, and how it goes from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from streamkit._core import now
from streamkit.testing._http2 import Http2Client, Http2Stream
from streamkit.testing._sockets import Leave

from ._seen import Ask, Seen
from ._staying import Stay, read_while

HTTP1_ONLY: Final = frozenset({"pipeline", "code_point", "last_byte"})
# A second stream is no pipelining, and frames come whole: a client sees no part of what is in one.

_HEAD_PART: Final = 12  # bytes: a frame's own head, and a little of what is in it
_CLOSES: Final = {"h2_goaway": Leave.FIN, "stay": Leave.FIN, "storm": Leave.RST}


class StreamClient:
    """One request on a connection of its own."""

    __slots__ = ("_ask", "_connection", "_seen", "_stream")

    def __init__(self, connection: Http2Client, ask: Ask, seen: Seen) -> None:
        self._connection = connection
        self._ask = ask
        self._seen = seen
        self._stream: Http2Stream | None = None

    async def come_to(self, phase: str, at: float | None) -> bool:
        """Go on until the phase; False if the answer ended before.

        Raises:
            OSError: The server has ended the connection, or is silent for too long.
            BadResponse: It sent what is not HTTP/2.
        """
        if phase == "connecting":
            return True
        _, body = self._ask.encode()
        half = int(at or 0) or len(body) // 2
        part = {"headers": int(at or _HEAD_PART), "body": half - len(body)}.get(phase)
        self._stream = stream = await self._connection.request(
            self._ask.method,
            self._ask.target,
            json=self._ask.json,
            headers=self._ask.headers,
            first_bytes=part,
        )
        if part is not None:
            return True
        self._seen.sent_at = now()
        if phase == "queued":
            await anyio.sleep(at or 0)
        return phase in {"first_byte", "queued"} or await self._read_until(stream, phase, at or 0)

    async def _read_until(self, stream: Http2Stream, phase: str, at: float) -> bool:
        seen = self._seen
        enough: dict[str, Callable[[], bool]] = {
            "byte": lambda: len(seen.body) >= at,
            "event": lambda: len(seen.events) >= at,
            "after_end": lambda: seen.complete,
        }
        while not enough[phase]() and await self._read(stream):
            pass
        return enough[phase]()

    async def _read(self, stream: Http2Stream) -> int:
        """Take what came; 0 at the end of the answer."""
        self._seen.status = (await stream.read_head()).status
        piece = await stream.read_chunk()
        if piece:
            self._seen.take(piece, now())
        else:
            self._seen.complete = bool(stream.ended_cleanly)
        return len(piece)

    async def leave(self, way: str, amount: float | None, stay: Stay) -> None:
        """Go in that way; raises OSError if the server was faster."""
        self._seen.left_at = now()
        match way:
            case "half_close":
                await self._connection.leave(Leave.HALF_CLOSE)
                await self._read_while(stay)
            case "slow":
                await self._read_while(stay, amount)
                await self._connection.leave(Leave.RST)
            case "stop_reading" | "vanish":
                await self._connection.leave(Leave(way))
                await stay()
            case _:
                await self._leave_at_once(way)

    async def _leave_at_once(self, way: str) -> None:
        if way == "h2_reset":
            assert self._stream is not None, "in no phase without a stream"
            await self._stream.reset()
            return
        if way == "h2_goaway":
            await self._connection.goaway()
        await self._connection.leave(_CLOSES.get(way) or Leave(way))
        self._seen.left(self._connection.left_at)

    async def _read_while(self, stay: Stay, rate: float | None = None) -> None:
        """Read until ``stay`` returns or the answer ends; so many bytes a second, if given."""

        async def read() -> None:
            while self._stream is not None and (size := await self._read(self._stream)):
                if rate:
                    await anyio.sleep(size / rate)

        await read_while(stay, read)

    def __repr__(self) -> str:
        return f"<StreamClient {self._connection!r}>"
