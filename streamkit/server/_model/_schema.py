"""What a method gives, as its return annotation says it, and Truss's schema of a model."""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from streamkit.runner._model import JsonSchema, Kind, Method, Methods, Takes, Validator
from streamkit.streams import namespace_of

_REFS: Final = "#/$defs/{model}"  # within the schema itself, as pydantic has it by default
_EMPTY: Final = inspect.Parameter.empty
_UNIONS: Final = (Union, types.UnionType)
_TAKES_INPUTS: Final = (Takes.INPUTS, Takes.BOTH)
_AWAITED: Final = (collections.abc.Awaitable, collections.abc.Coroutine)
_STREAMS: Final[tuple[object, ...]] = (
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.Generator,
    collections.abc.Iterator,
)
_STREAM_KINDS: Final = (Kind.GENERATOR, Kind.ASYNC_GENERATOR)


@dataclass(frozen=True, slots=True)
class Gives:
    """What a method gives.

    Attributes:
        values: The annotations of its whole answers; none if they are not known, or it streams.
        streams: Whether it gives a stream, or may.
        unknown: Whether no annotation says it.
    """

    values: tuple[object, ...]
    streams: bool
    unknown: bool = False

    @property
    def whole(self) -> bool:
        """Whether it gives a value, or may."""
        return bool(self.values) or not self.streams

    @property
    def model(self) -> type[BaseModel] | None:
        """The pydantic model that its whole answer is."""
        match self.values:
            case [type() as only] if issubclass(only, BaseModel):
                return only
            case _:
                return None


def what_gives(method: Method) -> Gives:
    """Read the return annotation of ``method``; what is no type there says nothing."""
    annotation = _returned(method.call)
    if annotation is _EMPTY:
        return Gives((), method.kind in _STREAM_KINDS, unknown=True)
    parts = list(_parts(annotation))
    values = tuple(part for part in parts if not _is_stream(part))
    streams = len(values) < len(parts) or method.kind in _STREAM_KINDS
    return Gives(values, streams)


def takes_inputs(method: Method) -> bool:
    """Whether a body is parsed for it."""
    return method.takes in _TAKES_INPUTS


def last_stage(methods: Methods) -> Method | None:
    """What gives the answer to a ``predict``."""
    return methods.postprocess or methods.predict


def truss_schema(methods: Methods) -> JsonSchema | None:
    """Return what ``GET /v1/models/{name}/schema`` answers, or None where no annotation says it.

    ``input_schema`` is what the first stage takes. ``output_schema`` and ``supports_streaming`` are
    null unless the last stage says that it gives a pydantic model, a stream, or either of them.
    """
    first, last = methods.first, last_stage(methods)
    if first is None or last is None:
        return None
    takes = Validator(first.annotation).schema(_REFS) if takes_inputs(first) else None
    gives = what_gives(last)
    if gives.unknown or (gives.model is None and (gives.values or not gives.streams)):
        gives = None
    if takes is None and gives is None:
        return None
    model = gives.model if gives else None
    return {
        "input_schema": takes,
        "output_schema": Validator(model).schema(_REFS) if model else None,
        "supports_streaming": gives.streams if gives else None,
    }


def _returned(call: Callable[..., object]) -> object:
    def stub() -> None: ...

    with suppress(Exception):  # whatever evaluating a string of the user's raises
        annotation = inspect.signature(call).return_annotation
        if annotation is not _EMPTY:
            stub.__annotations__ = {"it": annotation}
            return get_type_hints(stub, dict(namespace_of(call)), include_extras=True)["it"]
    return _EMPTY


def _parts(annotation: Any) -> Iterator[object]:
    """The members of a union, with what an awaitable ends with in its place."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in _UNIONS:
        for member in args:
            yield from _parts(member)
    elif origin is Annotated:
        yield from _parts(args[0])
    elif origin in _AWAITED:
        yield from _parts(args[-1])
    else:
        yield annotation


def _is_stream(annotation: object) -> bool:
    kind = get_origin(annotation)
    return any((annotation if kind is None else kind) is each for each in _STREAMS)
