"""What a model gave, in the form that its client asked for."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from typing import Any, Final, Protocol, cast

from starlette.background import BackgroundTask
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from streamkit._core import CancelToken, cancel_scope
from streamkit.asgi import ByteStream, EventStream, ServerEvent
from streamkit.runner._model import (
    Answer,
    ModelCall,
    Result,
    Stream,
    Value,
    dump_binary,
    dump_json,
    is_binary,
)
from streamkit.server._accept import accepts_events, header
from streamkit.streams import CancellableStream, drive

from ._chunks import as_json, joined
from ._errors import Code, NoForm, as_failure, error_headers
from ._head import SoundHead, with_late_head
from ._inputs import PREDICT
from ._openai import NAMED, OpenAIStream


class Form:
    """How one request wants to be answered, by Truss's rules; read where it matters.

    Args:
        scope: The request's.
        method: Of the model; streams of any but ``predict`` are framed as OpenAI's clients expect.
        heartbeat: Seconds of silence after which a stream of events sends a comment, or None.
    """

    __slots__ = ("_scope", "heartbeat", "method")

    def __init__(self, scope: Scope, *, method: str, heartbeat: float | None) -> None:
        self._scope = scope
        self.method: str = method
        self.heartbeat: float | None = heartbeat

    @property
    def binary(self) -> bool:
        """It came as msgpack, and is answered so."""
        return is_binary(header(self._scope, b"content-type"))

    @property
    def events(self) -> bool:
        """It takes server-sent events."""
        return accepts_events(self._scope)

    @property
    def whole(self) -> bool:
        """It takes one JSON value and no stream."""
        if header(self._scope, b"accept") != "application/json":
            return False
        # OpenAI's client says application/json also where it reads a stream.
        return "openai" not in (header(self._scope, b"user-agent") or "").lower()


async def response_to(result: Result, call: ModelCall, form: Form) -> ASGIApp:
    """Return what sends ``result``.

    Raises:
        NoForm: There is no form for it.
        StreamCancelled: A stream that is answered whole was cut short.
        Exception: What the model raised meanwhile.
    """
    match result:
        case Answer(response):
            return SoundHead(_passed_on(response, call))
        case Value(value):
            return _whole(lambda: value, call, form)
        case Stream(items) if form.whole:
            chunks = await drive(items, _read)
            return _whole(lambda: joined(chunks), call, form)
        case Stream(items) if form.method != PREDICT:
            named = form.method in NAMED
            return OpenAIStream(
                items, accepts_events=form.events, named=named, heartbeat=form.heartbeat
            )
        case Stream(items) if form.events:
            return ModelEvents(items, heartbeat=form.heartbeat)
        case Stream(items):
            return ByteStream(items)


_READY: Final[tuple[type, ...]] = (str, bytes, bytearray, memoryview, ServerEvent)


class ModelEvents(EventStream):
    """An event stream of whatever a model yields; values as the JSON that they have elsewhere."""

    def _as_failure(self, error: BaseException) -> Exception | None:
        return as_failure(error)

    def _encode(self, chunk: object) -> bytes:
        ready = isinstance(chunk, _READY)
        return super()._encode(chunk if ready else as_json(chunk).decode())


# -- whole answers -----------------------------------------------------------------------------


async def _read(chunks: AsyncIterator[Any]) -> list[object]:
    return [chunk async for chunk in chunks]


def _whole(make: Callable[[], object], call: ModelCall, form: Form) -> Response:
    binary = form.binary
    try:
        content = dump_binary(make()) if binary else dump_json(make())
    except Exception as error:
        raise NoForm from error
    call.answering()
    kind = "application/octet-stream" if binary else "application/json"
    return Response(content, media_type=kind)


# -- responses that the model made -------------------------------------------------------------


class _Streaming(Protocol):
    body_iterator: Any


def _passed_on(response: Response, call: ModelCall) -> ASGIApp:
    if response.status_code >= 300:
        response.headers.update(error_headers(Code.CLIENT))
    if response.background is not None:
        response.background = BackgroundTask(_behind, call, response.background)
    if not hasattr(response, "body_iterator"):
        call.answering()
        return _Passed(response, call.token)
    streaming = cast("_Streaming", response)
    stream = call.stream(_source_of(streaming.body_iterator))
    if isinstance(response, StreamingResponse) and _is_plain(response):
        return _as_ours(response, stream)
    streaming.body_iterator = stream
    return response if isinstance(response, ByteStream) else _LateHead(_Passed(response))


async def _behind(call: ModelCall, background: BackgroundTask) -> None:
    """Run what comes after an answer; however long it takes, the next request need not wait."""
    call.leave_slot()
    await background()


class _Passed:
    """A response of the model's; its background task runs however it ends, to clean up maybe.

    Args:
        response: The response.
        token: Ends the sending of a response that has no stream which the token ends.
    """

    __slots__ = ("_response", "_token")

    def __init__(self, response: Response, token: CancelToken | None = None) -> None:
        self._response = response
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        response = self._response
        background, response.background = response.background, None
        failure: Exception | None = None
        try:
            with cancel_scope(self._token) if self._token else nullcontext():
                await response(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
        if background is not None:
            await background()
        if failure is not None:
            raise failure


class _LateHead:
    """A response that streams in its own way: its status waits for its first chunk, too."""

    __slots__ = ("_app",)

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await self._app(scope, receive, with_late_head(send))


def _is_plain(response: StreamingResponse) -> bool:
    """Whether it sends as Starlette's own does, so that one of ours can do so in its place."""
    kind = type(response)
    return (
        kind.__call__ is StreamingResponse.__call__
        and kind.stream_response is StreamingResponse.stream_response
    )


def _as_ours(response: StreamingResponse, stream: CancellableStream[Any]) -> ByteStream:
    """The same answer, whose status waits for its first chunk, and which closes what it streams."""
    ours = ByteStream(stream, status_code=response.status_code, background=response.background)
    ours.raw_headers = response.raw_headers
    ours.charset = response.charset
    return ours


def _source_of(items: Any) -> AsyncIterable[Any] | Iterator[Any]:
    """The generator behind Starlette's wrapper for sync ones, which can never close it.

    Where Starlette has another wrapper one day, that is streamed as it is.
    """
    if getattr(items, "ag_code", None) is iterate_in_threadpool.__code__ and items.ag_frame:
        inner = items.ag_frame.f_locals.get("iterator")
        if inner is not None:
            return iter(inner)
    return items
