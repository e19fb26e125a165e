"""Streaming responses that close what they stream, in the task that drove it, whatever happens."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
)
from functools import partial
from typing import Any, Final, TypeAlias, cast

import anyio
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from streamkit._core import (
    SCOPE_KEY,
    CancelSource,
    Phase,
    Reason,
    Signal,
    Timer,
    beside,
    current_loop,
    hold,
)
from streamkit.errors import StreamCancelled, UsageBug
from streamkit.streams import (
    CancellableStream,
    ThreadedGenerator,
    cancellable,
    drive,
)

from ._gather import Writer, gather
from ._owner import GONE
from ._problems import error_event
from ._sse import HEARTBEAT, EventEncoder, ServerEvent, as_bytes, encode_event

logger = logging.getLogger("streamkit.asgi")

HEARTBEAT_EVERY: Final = 15.0  # seconds; proxies cut a silent connection after 30 to 60
GOODBYE_LIMIT: Final = 5.0  # seconds; who does not read cannot be told why the stream ends

Source = AsyncIterator[Any] | Iterator[Any]
Stream: TypeAlias = CancellableStream[Any] | ThreadedGenerator[Any]


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

    media_type: str | None = "application/octet-stream"

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
        self._started = False
        self.status_code = status_code
        self.media_type = media_type or self.media_type
        self.background = background
        self.init_headers(headers)

    @property
    def body_iterator(self) -> Stream:
        """What is sent; may be replaced until then (the name is that of Starlette's responses)."""
        return self._stream

    @body_iterator.setter
    def body_iterator(self, source: Source) -> None:
        self._stream = _as_stream(source)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI.

        Raises:
            StreamCancelled: The stream was cut short; the middleware turns it into a status while
                it can.
        """
        failure: Exception | None = None
        try:
            await self._run(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
        if self.background is not None:
            await self.background()
        if failure is not None:
            raise failure

    # Plain functions, down to where the chunks are read: each coroutine on the way there would be
    # kept for as long as the stream is open, and be gone through for each chunk.

    def _run(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        driven = drive(self._stream, partial(self._respond, send))
        return driven if SCOPE_KEY in scope else self._listening(receive, driven)

    def _respond(self, send: Send, chunks: AsyncIterator[Any]) -> Awaitable[None]:
        writer = Writer(self._encode, self._last, partial(self._send, send))
        return gather(chunks, self._stream.token, writer)

    async def _listening(self, receive: Receive, driven: Awaitable[None]) -> None:
        """Hear of the client ourselves, where no middleware of ours does."""
        listen = partial(_listen, receive, self._stream.source)
        async with beside(listen, "streamkit disconnect listener"):
            await driven

    def _send(self, send: Send, data: bytes, *, more: bool = True) -> Awaitable[None]:
        # A plain function where nothing is in the way: one frame less for each chunk.
        message: Message = {"type": "http.response.body", "body": data, "more_body": more}
        beating = self._touch()
        if self._started and beating is None:
            return send(message)
        return self._send_behind(beating, send, message)

    async def _send_behind(self, beating: Signal | None, send: Send, message: Message) -> None:
        if beating is not None:
            await beating.wait()
        if not self._started:
            await self._start(send)
        await send(message)

    async def _start(self, send: Send) -> None:
        self._started = True
        self._stream.source.phase = Phase.DECODE
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )

    def _touch(self) -> Signal | None:
        """Something is about to be sent; return what it has to wait for, if anything."""
        return None

    def _last(self, count: int) -> bytes:
        return b""

    def _encode(self, chunk: object) -> bytes:
        if isinstance(chunk, str):
            return chunk.encode(self.charset)
        if (data := as_bytes(chunk)) is not None:
            return data
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

    media_type: str | None = "text/event-stream"

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

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._heartbeat.start(partial(self._beat, send))
        try:
            await super()._run(scope, receive, send)
        except Exception as error:
            if not self._started:
                raise
            if isinstance(error, StreamCancelled) and error.cancellation.reason in GONE:
                return  # nobody is there
            if self._heartbeat.stopped:  # the last event is on its way, and stays the last one
                raise
            await self._say_goodbye(error, send)
        except BaseException as error:  # noqa: ASYNC103 - raised, unless it is the source's own
            if not self._started or (failure := self._as_failure(error)) is None:
                raise
            await self._say_goodbye(failure, send)  # noqa: ASYNC102, ASYNC120 - limited
        finally:
            self._heartbeat.stop()

    def _touch(self) -> Signal | None:
        heartbeat = self._heartbeat
        heartbeat.touch()
        return heartbeat.beating

    def _encode(self, chunk: object) -> bytes:
        return self._encoder.encode(chunk)

    def _last(self, count: int) -> bytes:
        self._heartbeat.stop()
        summary = self._summary() if self._summary else {"finish_reason": "stop", "tokens": count}
        return self._encoder.flush() + encode_event(ServerEvent(event="done", data=summary))

    async def _beat(self, send: Send) -> None:
        # Past _send(), where chunks wait for the comment that is on its way.
        if not self._started:
            await self._start(send)
        await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})

    def _as_failure(self, error: BaseException) -> Exception | None:
        """What there is to tell of what is no ``Exception``; None where it ends the task."""
        return None

    def _farewell(self, error: Exception) -> bytes | None:
        """The last bytes of a stream that broke; None where there is no way to say it."""
        last = ServerEvent(event="error", data=error_event(error))
        return self._encoder.flush() + encode_event(last)

    async def _say_goodbye(self, error: Exception, send: Send) -> None:
        self._heartbeat.stop()
        if (last := self._farewell(error)) is None:
            raise error
        if isinstance(error, StreamCancelled):
            logger.debug("a stream was cut short: %s", error)
        else:
            logger.error("a stream broke off", exc_info=error)
        with anyio.move_on_after(GOODBYE_LIMIT) as scope:
            await self._send(send, last, more=False)
        if scope.cancelled_caught:
            raise error


class _Heartbeat:
    """One timer a stream, no task while it is silent, one stamp a chunk.

    Attributes:
        beating: Set while a comment is on its way: chunks have to wait for it.
    """

    __slots__ = ("_beat", "_every", "_last", "_loop", "_timer", "beating")

    def __init__(self, every: float | None) -> None:
        self._every = every
        self._loop = current_loop()
        self._last = 0.0
        self._timer: Timer | None = None
        self._beat: Callable[[], Awaitable[None]] | None = None
        self.beating: Signal | None = None

    def start(self, beat: Callable[[], Awaitable[None]]) -> None:
        """Call ``beat`` after each silence of the interval, until :meth:`stop`."""
        self._beat = beat
        self.touch()
        self._arm()

    def touch(self) -> None:
        """Something is being sent."""
        self._last = self._loop.now()

    @property
    def stopped(self) -> bool:
        """Whether it has been, or never began."""
        return self._beat is None

    def stop(self) -> None:
        """No beat after this one."""
        self._beat = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._every is not None:
            self._timer = self._loop.call_at(self._last + self._every, self._due)

    def _due(self) -> None:
        assert self._every is not None
        # As the timer reckons: the difference may come out a rounding below the interval, for ever.
        if self._loop.now() >= self._last + self._every:
            self.touch()
            if self.beating is None:  # the one before is stuck: the sweeper deals with that
                self.beating = self._loop.signal()
                hold(self._beat_once, name="heartbeat", limit=math.inf)
        self._arm()

    async def _beat_once(self) -> None:
        assert self.beating is not None
        try:
            if self._beat is not None:
                await self._beat()
        finally:
            self.beating.set()
            self.beating = None


def _as_stream(source: Source) -> Stream:
    if isinstance(source, CancellableStream | ThreadedGenerator):
        return source
    if isinstance(cast("object", source), AsyncIterator | Iterator):
        return cancellable(source)
    raise UsageBug(f"a stream is made of an async iterator or a generator, got {_describe(source)}")


def _describe(source: object) -> str:
    if inspect.isroutine(source):
        name = getattr(source, "__name__", "it")
        return f"the function {name} itself: call it, {name}(…)"
    if inspect.iscoroutine(source):
        source.close()  # or it would complain that nobody awaited it
        return "a coroutine: await it, or give what it returns"
    return f"{type(source).__name__}: iter() of it would do"


async def _listen(receive: Receive, source: CancelSource) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    source.cancel(Reason.CLIENT_DISCONNECT, "the server reported a disconnect")
