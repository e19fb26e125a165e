"""Connections through a proxy: two directions each, with the toxics that each of them has."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import struct
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from streamkit._core import now

from ._toxics import STREAMS, Stream, Toxic

PIECE: Final = 16_384  # bytes of one read
BUFFERED: Final = 64  # pieces that are under way in one direction; then nothing more is read
_RESET: Final = struct.pack("ii", 1, 0)  # linger for 0 s


class _Ended(Exception):
    """A toxic ends the connection."""


@dataclass(frozen=True, slots=True)
class _Piece:
    at: float
    data: bytes


class FaultProxy:
    """Listens, passes everything on to one upstream, and does to it what its toxics say.

    ``async with FaultProxy("127.0.0.1:8000", "latency:latency=100") as proxy:`` listens on a free
    port of loopback. Toxics can be added and taken away meanwhile; connections that are open have
    the change with their next piece. Memory is bounded: a megabyte for each direction.

    Cancellation:
        Every connection is reset.

    Attributes:
        host: Where it listens.
        port: The same; once the block runs.
        connections: That have been made.
        passed: Bytes that were passed on, by direction.
    """

    def __init__(
        self,
        upstream: str,
        *toxics: Toxic | str,
        listen: str = "127.0.0.1:0",
        seed: int = 0,
    ) -> None:
        """Make a proxy to ``HOST:PORT``; raises ValueError for what is no address or no toxic."""
        host, port = address(listen)
        self.host: str = host
        self.port: int = port
        self.connections: int = 0
        self.passed: dict[Stream, int] = {"upstream": 0, "downstream": 0}
        self._upstream = address(upstream)
        self._seed = seed
        self._toxics: list[Toxic] = []
        self._changed = anyio.Event()
        for toxic in toxics:
            self.add(toxic)
        self._running: Any = None

    @property
    def url(self) -> str:
        """``http://HOST:PORT`` of the proxy."""
        return f"http://{self.host}:{self.port}"

    @property
    def toxics(self) -> Sequence[Toxic]:
        """Those that it has now."""
        return tuple(self._toxics)

    def add(self, toxic: Toxic | str) -> Toxic:
        """Have one more."""
        added = Toxic.parse(toxic) if isinstance(toxic, str) else toxic
        self._toxics.append(added)
        self._tell()
        return added

    def remove(self, toxic: Toxic) -> None:
        """Take one away; no effect on one that it does not have."""
        self._toxics = [each for each in self._toxics if each is not toxic]
        self._tell()

    async def __aenter__(self) -> Self:
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._running.__aexit__(*error)  # noqa: ASYNC102 - ends what it started, at once

    def __repr__(self) -> str:
        return f"<FaultProxy {self.host}:{self.port}, {self.connections} connections>"

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None]:
        listener = await anyio.create_tcp_listener(local_host=self.host, local_port=self.port)
        self.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - this is no Django
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._serve)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _serve(self, client: SocketStream) -> None:
        self.connections += 1
        dice = random.Random(f"{self._seed} {self.connections}")  # noqa: S311 - dice, no secrets
        async with client:
            try:
                server = await anyio.connect_tcp(*self._upstream)
            except OSError:
                _reset(client)
                return
            async with server:
                await _Link(self, client, server, dice).run()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_changed(self) -> None:
        """Return when a toxic was added or taken away."""
        await self._changed.wait()


class _Link:
    """One connection: both of its ends."""

    def __init__(
        self, proxy: FaultProxy, client: SocketStream, server: SocketStream, dice: random.Random
    ) -> None:
        self._proxy = proxy
        self._ends: dict[Stream, tuple[SocketStream, SocketStream]] = {
            "upstream": (client, server),
            "downstream": (server, client),
        }
        self._dice = dice
        self._has: dict[Toxic, bool] = {}  # decided by toxicity, once for each
        self._began_at: dict[Toxic, float] = {}

    async def run(self) -> None:
        """Pass on until both directions have ended, or a toxic ends it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_time, tasks)
            await self._pass_on_both_ways()
            tasks.cancel_scope.cancel()

    async def _pass_on_both_ways(self) -> None:
        try:
            async with anyio.create_task_group() as directions:
                for stream in STREAMS:
                    directions.start_soon(self._pass_on, stream)
        except* _Ended:
            pass
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._reset_both()  # one side was reset: so is the other

    def _active(self, stream: Stream) -> Iterator[Toxic]:
        for toxic in self._proxy.toxics:
            if toxic not in self._has:
                self._has[toxic] = self._dice.random() < toxic.toxicity
                self._began_at[toxic] = now()
            if toxic.stream == stream and self._has[toxic]:
                yield toxic

    def _all_active(self) -> Iterator[Toxic]:
        for stream in STREAMS:
            yield from self._active(stream)

    async def _keep_time(self, tasks: anyio.abc.TaskGroup) -> None:
        """End the connection when a toxic's time has come."""
        while True:
            due = min(
                (self._due(toxic) for s in STREAMS for toxic in self._active(s)), default=math.inf
            )
            with anyio.CancelScope(deadline=due):
                await self._proxy.wait_changed()
            if now() >= due:
                break
        kinds = {toxic.kind for toxic in self._all_active() if self._due(toxic) <= now()}
        if "reset_peer" in kinds:
            self._reset_both()
        tasks.cancel_scope.cancel()

    def _due(self, toxic: Toxic) -> float:
        after = toxic.numbers.get("timeout", math.inf) / 1_000
        if toxic.kind == "timeout" and after == 0:
            return math.inf
        return self._began_at[toxic] + after

    async def _pass_on(self, stream: Stream) -> None:
        send, receive = anyio.create_memory_object_stream[_Piece](BUFFERED)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, stream, send)
            tasks.start_soon(self._write, stream, receive)

    async def _read(self, stream: Stream, into: MemoryObjectSendStream[_Piece]) -> None:
        source, _ = self._ends[stream]
        async with into:
            with contextlib.suppress(anyio.EndOfStream):
                while True:
                    await into.send(_Piece(now(), await source.receive(PIECE)))

    async def _write(self, stream: Stream, source: MemoryObjectReceiveStream[_Piece]) -> None:
        _, sink = self._ends[stream]
        sent = 0
        async with source:
            async for piece in source:
                data = piece.data[: self._left(stream, sent)]
                for part in await self._delayed(stream, _Piece(piece.at, data)):
                    await self._send(stream, sink, part)
                sent += len(data)
                if self._left(stream, sent) == 0:
                    raise _Ended
        await self._hold_back_the_end(stream)
        await sink.send_eof()

    async def _hold_back_the_end(self, stream: Stream) -> None:
        for toxic in self._active(stream):
            if toxic.kind == "slow_close":
                await anyio.sleep(toxic.numbers["delay"] / 1_000)
        while any(toxic.kind == "timeout" for toxic in self._active(stream)):
            await self._proxy.wait_changed()

    def _left(self, stream: Stream, sent: int) -> int | None:
        """Bytes that may still pass; None: any number."""
        limits = [t.numbers["bytes"] for t in self._active(stream) if t.kind == "limit_data"]
        return max(0, int(min(limits)) - sent) if limits else None

    async def _delayed(self, stream: Stream, piece: _Piece) -> Sequence[bytes]:
        """Wait as the toxics say; what is left of the piece, in parts."""
        parts = [piece.data]
        for toxic in self._active(stream):
            match toxic.kind:
                case "latency":
                    spread = toxic.numbers["jitter"]
                    delay = toxic.numbers["latency"] + self._dice.uniform(-spread, spread)
                    await anyio.sleep_until(piece.at + delay / 1_000)
                case "bandwidth":
                    await anyio.sleep(len(piece.data) / toxic.numbers["rate"] / 1_000)
                case "timeout":
                    return ()
                case "slicer":
                    parts = [part for whole in parts for part in self._slices(whole, toxic)]
                case _:
                    pass
        return parts

    def _slices(self, data: bytes, toxic: Toxic) -> Iterator[bytes]:
        average, spread = toxic.numbers["average_size"], toxic.numbers["size_variation"]
        while data:
            size = max(1, int(average + self._dice.uniform(-spread, spread)))
            yield data[:size]
            data = data[size:]

    async def _send(self, stream: Stream, sink: SocketStream, part: bytes) -> None:
        if not part:
            return
        await sink.send(part)
        self._proxy.passed[stream] += len(part)
        for toxic in self._active(stream):
            if toxic.kind == "slicer" and toxic.numbers["delay"]:
                await anyio.sleep(toxic.numbers["delay"] / 1_000_000)

    def _reset_both(self) -> None:
        for end in self._ends["upstream"]:
            _reset(end)


def _reset(end: SocketStream) -> None:
    """Have the end's close be a reset."""
    with contextlib.suppress(OSError, anyio.ClosedResourceError):
        raw = end.extra(SocketAttribute.raw_socket)  # noqa: S610 - this is no Django
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, or of a URL.

    Raises:
        ValueError: It is neither.
    """
    host, colon, port = text.rpartition("//")[2].rstrip("/").rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)
