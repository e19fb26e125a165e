"""A request's body: read up to a limit, within a time, and where wanted understood as JSON."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from streamkit._core import CancelToken, Interrupted, current_loop, resume
from streamkit.streams import CLOSE_GRACE, Step

from ._accept import header
from .settings import Settings

M = TypeVar("M", bound=BaseModel)

_SHOWN: Final = 5  # problems in one answer; whoever sent nonsense needs no list of all of it
_LISTED: Final = 2000  # pydantic lists all or none, and takes seconds for a million
_PATH_SHOWN: Final = 200  # characters; a field's name is whatever the client made of it
_CLOSE: Final = {"connection": "close"}  # the rest of the body is not read: nothing can follow it


async def read_model(request: Request, model: type[M], settings: Settings, token: CancelToken) -> M:
    """Return the body as ``model``.

    Raises:
        HTTPException: 400 it is no such JSON, 408 it did not come in time, 413 it is too long,
            415 it is declared as something else.
        ClientDisconnect, StreamCancelled: Nobody waits for the answer any more.

    Cancellation:
        Stops reading.
    """
    body = await read_json(request, settings, token)
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise HTTPException(400, explain(error)) from None


async def read_json(request: Request, settings: Settings, token: CancelToken) -> bytes:
    """Return a body that is declared as JSON, or not at all; raises as :func:`read_model` does.

    Cancellation:
        Stops reading.
    """
    _check_type(request)
    return await read_body(request, settings, token)


async def read_body(request: Request, settings: Settings, token: CancelToken) -> bytes:
    """Return the body as it came.

    Raises:
        HTTPException: 408 it did not come in time, 413 it is too long.
        ClientDisconnect, StreamCancelled: Nobody waits for the answer any more.

    Cancellation:
        Stops reading.
    """
    body = _Body(settings.max_body_bytes)
    body.check_declared(request)
    token.raise_if_cancelled()
    loop, seconds = current_loop(), settings.read_timeout
    reading: Awaitable[bytes] = body.read(request)
    if loop.steps_by_hand:  # mostly all of it is there: nothing waits, and nothing need watch
        steps = reading.__await__()
        try:
            signal = next(steps)
        except StopIteration as done:
            return done.value
        reading = resume(steps, signal)
    # One step that both the token and a timer end: a scope for each costs ten times as much.
    step = Step(loop, CLOSE_GRACE, "the reading of a body")
    listener = token.add_listener(lambda _: step.stop())
    timer = loop.call_at(loop.now() + seconds, step.stop)
    try:
        return await step.run(reading)
    except Interrupted:
        token.raise_if_cancelled()
        said = f"the body did not arrive within {seconds:g} s; {body.size} bytes of it did"
        raise HTTPException(408, said, _CLOSE) from None
    finally:
        timer.cancel()
        listener.remove()


class _Body:
    """What has come of it.

    Attributes:
        size: In bytes.
    """

    __slots__ = ("_limit", "_pieces", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self.size: int = 0

    def check_declared(self, request: Request) -> None:
        """Refuse what says itself that it is too long."""
        declared = (header(request.scope, b"content-length") or "").lstrip("0")
        # Its digits first: Python refuses to read a number of thousands of them.
        most = len(str(self._limit))
        if declared.isdecimal() and (len(declared) > most or int(declared) > self._limit):
            raise self._too_long()

    async def read(self, request: Request) -> bytes:
        """Read it to its end. Not by ``request.stream()``, whose generator costs more than this."""
        more = True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece = message.get("body", b"")
            self.size += len(piece)
            if self.size > self._limit:
                raise self._too_long()
            self._pieces.append(piece)
            more = message.get("more_body", False)
        return b"".join(self._pieces)

    def _too_long(self) -> HTTPException:
        return HTTPException(413, f"the body is longer than {self._limit} bytes", _CLOSE)


def _check_type(request: Request) -> None:
    """Nothing declared is taken for JSON; so is what browsers and tools call it."""
    encoding = request.headers.get("content-encoding") or "identity"
    if encoding.lower() != "identity":
        said = f"content-encoding {encoding[:80]!r} is not understood, send identity"
        raise HTTPException(415, said)
    declared = request.headers.get("content-type")
    if declared is None:
        return
    kind, *parameters = (part.strip().lower() for part in declared.split(";"))
    charsets = [p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset")]
    if kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(415, f"content-type must be application/json, got {declared[:80]!r}")
    if any(charset not in {"utf-8", "utf8", "us-ascii"} for charset in charsets):
        raise HTTPException(415, f"JSON is sent as UTF-8, got {declared[:80]!r}")


def problems_of(error: ValidationError) -> list[ErrorDetails]:
    """Each mistake; none of them where there are too many to list."""
    if error.error_count() > _LISTED:
        return []
    return error.errors(include_url=False, include_context=False)


def explain(error: ValidationError) -> str:
    """What is wrong, field by field."""
    problems = problems_of(error)
    if not problems:
        return f"the body has {error.error_count()} mistakes, too many to list"
    shown = [_line(each["loc"], each["type"], each["msg"]) for each in problems[:_SHOWN]]
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "; ".join([*shown, *more])


def _line(location: tuple[int | str, ...], kind: str, message: str) -> str:
    if kind == "json_invalid":
        return f"the body is not valid JSON: {message.removeprefix('Invalid JSON: ')}"
    if kind == "extra_forbidden":
        message = "there is no such field"
    path = _path(location) or "the body"
    return f"{path}: {message[0].lower()}{message[1:]}"


def path_of(error: ValidationError) -> str | None:
    """The first field that is wrong; None when it is the body."""
    problems = problems_of(error)
    return (_path(problems[0]["loc"]) or None) if problems else None


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)[:_PATH_SHOWN]
