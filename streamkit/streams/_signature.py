"""Which argument of a call is the request: found by annotation, without importing Starlette."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from ._annotations import CONNECTION, Function, connection_class, namespace_of

_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a function takes its request: by name, and by position unless it is keyword-only."""

    name: str
    index: int | None


def request_parameter(function: Function) -> str | None:
    """Return the name of the parameter of ``function`` that takes the request, or None.

    That is the first one whose annotation is Starlette's ``HTTPConnection`` or a subclass
    (``Request``, ``WebSocket``), also inside ``Optional``, a union or ``Annotated``, as an object,
    a string or postponed. A name that does not resolve (imported under ``TYPE_CHECKING``, most
    often) counts if it is one of those three words; the parameter's own name never counts.

    Bound methods, ``functools.partial``, callable objects and decorators that used
    ``functools.wraps`` are seen through.
    """
    function, _, _ = _unwrapped(function, (), {})
    place = _place(function)
    return place and place.name


def find_request(
    function: Function, args: Sequence[object], kwargs: Mapping[str, object]
) -> object | None:
    """Return the request among the arguments of ``function(*args, **kwargs)``, or None.

    See :func:`request_parameter`. What stands there must be one: an ``HTTPConnection``, or an
    object that can be asked as one (``is_disconnected`` or ``receive``).
    """
    function, args, kwargs = _unwrapped(function, args, kwargs)
    place = _place(function)
    if place is None:
        return None
    if place.index is not None and place.index < len(args):
        value = args[place.index]
    else:
        value = kwargs.get(place.name)
    return value if _is_request(value) else None


def _unwrapped(
    function: Function, args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[Function, Sequence[object], Mapping[str, object]]:
    """The plain function behind bound arguments, with those put in front of the others."""
    while True:
        if isinstance(function, functools.partial):
            args = (*function.args, *args)
            kwargs = {**function.keywords, **kwargs}
            function = function.func
        elif inspect.ismethod(function):
            args = (function.__self__, *args)
            function = function.__func__
        else:
            return function, args, kwargs


_places: WeakKeyDictionary[Function, _Place | None] = WeakKeyDictionary()


def _place(function: Function) -> _Place | None:
    try:
        return _places[function]
    except (KeyError, TypeError):  # new, or neither hashable nor weakly referable
        pass
    place, certain = _find_place(function)
    if certain:
        with suppress(TypeError):
            _places[function] = place
    return place


def _find_place(function: Function) -> tuple[_Place | None, bool]:
    """Return the place, and whether it will be the same tomorrow."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C, without a signature
        return None, True
    namespace = namespace_of(function)
    certain = True
    for index, parameter in enumerate(parameters):
        verdict = CONNECTION.judge(parameter.annotation, namespace)
        if verdict.is_request:
            positional = parameter.kind in _POSITIONAL
            return _Place(parameter.name, index if positional else None), verdict.certain
        certain = certain and verdict.certain
    return None, certain


def _is_request(value: object) -> bool:
    connection = connection_class("HTTPConnection")
    if connection is not None and isinstance(value, connection):
        return True
    return hasattr(value, "is_disconnected") or hasattr(value, "receive")
