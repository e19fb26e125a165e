"""Streaming responses that close what they stream, in the task that drove it, whatever happens."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, cast

import anyio
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamkit._core import (
    SCOPE_KEY,
    CancelSource,
    Reason,
    Timer,
    beside,
    cancel_scope,
    current_loop,
    hold,
)
from streamkit.errors import StreamCancelled, UsageBug
from streamkit.streams import CancellableStream, ThreadedGenerator, cancellable

from ._problems import error_event
from ._sse import HEARTBEAT, EventEncoder, ServerEvent, encode_event

logger = logging.getLogger("streamkit.asgi")

HEARTBEAT_EVERY: Final = 15.0  # seconds; proxies cut a silent connection after 30 to 60

GOODBYE_LIMIT: Final = (
    5.0  # seconds; a client that does not read cannot be told why its stream ends
)

Source = AsyncIterator[Any] | Iterator[Any]
Stream = CancellableStream[Any] | ThreadedGenerator[Any]


class ByteStream(Response):
    """Streams raw chunks (``str`` or bytes-like) as they come.

    The status goes out with the first chunk, so that an error before it has its own status. An
    error after it, and a cancel too, leave the body incomplete: the connection ends un-cleanly and
    no client takes the part for the whole.

    The source is closed on every way out, in the task that drove it, shielded and limited in time.
    Anything that iterates will do; what is not a stream of ours yet becomes one.

    Args:
        source: An async iterator, or a generator (it then runs on a worker thread).
        status_code: HTTP status.
        headers: Further headers.
        media_type: Content type.
        background: Runs when the stream has ended, however it ended.
    """

    media_type = "application/octet-stream"

    def __init__(
        self,
        source: Source,
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        self._stream = _as_stream(source)
        self.status_code = status_code
        self.media_type = media_type or self.media_type
        self.background = background
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI.

        Raises:
            StreamCancelled: The stream was cut short; the middleware turns it into a status while
                it can.
        """
        try:
            await self._run(scope, receive, send)
        except Exception:
            await self._run_background()
            raise
        await self._run_background()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        try:
            async with _watched(scope, receive, stream.source):
                with cancel_scope(stream.token):
                    await self._respond(send)
        finally:
            await stream.aclose()

    async def _run_background(self) -> None:
        if self.background is not None:
            await self.background()

    async def _respond(self, send: Send) -> None:
        started = False
        async for chunk in self._stream:
            if not started:
                await self._start(send)
                started = True
            await send(_body(self._encode(chunk), more=True))
        if not started:
            await self._start(send)
        await send(_body(b"", more=False))

    async def _start(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )

    def _encode(self, chunk: object) -> bytes:
        if isinstance(chunk, str):
            return chunk.encode(self.charset)
        if isinstance(chunk, bytes | bytearray | memoryview):
            return bytes(chunk)
        raise UsageBug(
            f"a ByteStream sends str or bytes, its source yielded {type(chunk).__name__}; "
            "yield text, or use EventStream, which sends other values as JSON"
        )


class EventStream(ByteStream):
    """Streams server-sent events: one event a chunk, and a last one that says how it ended.

    Text is sent as it is, bytes as UTF-8, a :class:`ServerEvent` with its fields, any other value
    as JSON. The last event is ``event: done`` with ``{"finish_reason", …}``, or ``event: error``
    with ``{"error": {"type", "message", "reason"?}}``: a stream without either was cut.

    A comment every ``heartbeat`` seconds of silence keeps proxies from cutting the connection. It
    also starts the response if the first chunk takes that long.

    Args:
        source: As for :class:`ByteStream`.
        heartbeat: Seconds, or None for none.
        summary: Called when the source came to its end: the data of ``event: done``.
        status_code: HTTP status.
        headers: Further headers.
        background: Runs when the stream has ended.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: Source,
        *,
        heartbeat: float | None = HEARTBEAT_EVERY,
        summary: Callable[[], Mapping[str, object]] | None = None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        if heartbeat is not None and heartbeat <= 0:
            raise UsageBug(f"heartbeat must be above 0 seconds or None, got {heartbeat!r}")
        no_buffering = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(
            source,
            status_code=status_code,
            headers={**no_buffering, **(headers or {})},
            background=background,
        )
        self._heartbeat = _Heartbeat(heartbeat)
        self._summary = summary
        self._encoder = EventEncoder()
        self._started = False

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._heartbeat.beating(lambda: self._beat(send)):
                await super()._run(scope, receive, send)
        except Exception as error:
            if not self._started:
                raise
            await self._say_goodbye(error, send)

    async def _respond(self, send: Send) -> None:
        chunks = 0
        encode = self._encoder.encode
        heartbeat = self._heartbeat
        async for chunk in self._stream:
            if not self._started:
                await self._start(send)
            if data := encode(chunk):
                await heartbeat.make_way()
                await send(_body(data, more=True))
            chunks += 1
        if not self._started:
            await self._start(send)
        summary = self._summary() if self._summary else {"finish_reason": "stop", "tokens": chunks}
        done = encode_event(ServerEvent(event="done", data=summary))
        await heartbeat.make_way(for_good=True)
        await send(_body(self._encoder.flush() + done, more=False))

    async def _start(self, send: Send) -> None:
        self._started = True
        await super()._start(send)

    async def _beat(self, send: Send) -> None:
        if not self._started:
            await self._start(send)
        await send(_body(HEARTBEAT, more=True))

    async def _say_goodbye(self, error: Exception, send: Send) -> None:
        if isinstance(error, StreamCancelled):
            logger.debug("a stream was cut short: %s", error)
        else:
            logger.error("a stream broke off", exc_info=error)
        last = encode_event(ServerEvent(event="error", data=error_event(error)))
        with anyio.move_on_after(GOODBYE_LIMIT) as scope:
            await send(_body(self._encoder.flush() + last, more=False))
        if scope.cancelled_caught:
            raise error


class _Heartbeat:
    """One timer a stream, no task while it is silent, one stamp a chunk."""

    __slots__ = ("_beat", "_beating", "_every", "_last", "_loop", "_timer")

    def __init__(self, every: float | None) -> None:
        self._every = every
        self._loop = current_loop()
        self._last = self._loop.now()
        self._timer: Timer | None = None
        self._beat: Callable[[], Awaitable[None]] | None = None
        self._beating: anyio.Event | None = None

    @contextmanager
    def beating(self, beat: Callable[[], Awaitable[None]]) -> Iterator[None]:
        """Call ``beat`` after each silence of the interval, while the block runs."""
        self._beat = beat
        self._last = self._loop.now()
        self._arm()
        try:
            yield
        finally:
            self._stop()

    async def make_way(self, *, for_good: bool = False) -> None:
        """A chunk is about to be sent: wait for a comment that is on its way."""
        self._last = self._loop.now()
        if for_good:
            self._stop()
        if self._beating is not None:
            await self._beating.wait()

    def _arm(self) -> None:
        if self._every is not None:
            self._timer = self._loop.call_at(self._last + self._every, self._due)

    def _stop(self) -> None:
        self._beat = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        if self._every is None or self._beat is None:
            return
        if self._loop.now() - self._last >= self._every and self._beating is None:
            self._last = self._loop.now()
            self._beating = anyio.Event()
            hold(self._send_one, name="heartbeat", limit=math.inf)
        self._arm()

    async def _send_one(self) -> None:
        assert self._beating is not None
        try:
            if self._beat is not None:
                await self._beat()
        finally:
            self._beating.set()
            self._beating = None


def _as_stream(source: Source) -> Stream:
    if isinstance(source, CancellableStream | ThreadedGenerator):
        return cast("Stream", source)
    return cast("Stream", cancellable(source))


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@asynccontextmanager
async def _watched(scope: Scope, receive: Receive, source: CancelSource) -> AsyncIterator[None]:
    """Listen for the disconnect ourselves where no middleware of ours does."""
    if SCOPE_KEY in scope:
        yield
        return
    async with beside(partial(_listen, receive, source), "streamkit disconnect listener"):
        yield


async def _listen(receive: Receive, source: CancelSource) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    source.cancel(Reason.CLIENT_DISCONNECT, "the server reported a disconnect")
