"""A request's body: read up to a limit, within a time, and where wanted understood as JSON."""

from __future__ import annotations

from typing import Final, TypeVar

import anyio
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from .settings import Settings

M = TypeVar("M", bound=BaseModel)

_SHOWN: Final = 5  # problems in one answer; whoever sent nonsense needs no list of all of it
_PATH_SHOWN: Final = 200  # characters; a field's name is whatever the client made of it
_CLOSE: Final = {"connection": "close"}  # the rest of the body is not read: nothing can follow it


async def read_model(request: Request, model: type[M], settings: Settings) -> M:
    """Return the body as ``model``.

    Raises:
        HTTPException: 400 it is no such JSON, 408 it did not come in time, 413 it is too long,
            415 it is declared as something else.
        ClientDisconnect: The client left while it was being read.

    Cancellation:
        Stops reading.
    """
    _check_type(request)
    body = await read_body(request, settings)
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise HTTPException(400, _explain(error)) from None


async def read_body(request: Request, settings: Settings) -> bytes:
    """Return the body as it came.

    Raises:
        HTTPException: 408 it did not come in time, 413 it is too long.
        ClientDisconnect: The client left while it was being read.

    Cancellation:
        Stops reading.
    """
    limit, seconds = settings.max_body_bytes, settings.read_timeout
    too_long = HTTPException(413, f"the body is longer than {limit} bytes", _CLOSE)
    declared = request.headers.get("content-length", "").lstrip("0")
    # Its digits first: Python refuses to read a number of thousands of them.
    if declared.isdecimal() and (len(declared) > len(str(limit)) or int(declared) > limit):
        raise too_long
    pieces: list[bytes] = []
    size = 0
    with anyio.move_on_after(seconds) as scope:
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                raise too_long
            pieces.append(piece)
    if scope.cancelled_caught:
        raise HTTPException(
            408, f"the body did not arrive within {seconds:g} s; {size} bytes of it did", _CLOSE
        )
    return b"".join(pieces)


def _check_type(request: Request) -> None:
    """Nothing declared is taken for JSON; so is what browsers and tools call it."""
    encoding = request.headers.get("content-encoding") or "identity"
    if encoding.lower() != "identity":
        raise HTTPException(415, f"content-encoding {encoding!r} is not understood, send identity")
    declared = request.headers.get("content-type")
    if declared is None:
        return
    kind, *parameters = (part.strip().lower() for part in declared.split(";"))
    charsets = [p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset")]
    if kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(415, f"content-type must be application/json, got {declared!r}")
    if any(charset not in {"utf-8", "utf8", "us-ascii"} for charset in charsets):
        raise HTTPException(415, f"JSON is sent as UTF-8, got {declared!r}")


def _explain(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False)
    shown = [_line(each["loc"], each["type"], each["msg"]) for each in problems[:_SHOWN]]
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "; ".join([*shown, *more])


def _line(location: tuple[int | str, ...], kind: str, message: str) -> str:
    if kind == "json_invalid":
        return f"the body is not valid JSON: {message.removeprefix('Invalid JSON: ')}"
    if kind == "extra_forbidden":
        message = "there is no such field"
    path = ".".join(str(part) for part in location)[:_PATH_SHOWN] or "the body"
    return f"{path}: {message[0].lower()}{message[1:]}"
