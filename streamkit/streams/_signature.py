"""Which argument of a call is the request: found by annotation, without importing Starlette."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final, ForwardRef, TypeAlias, Union, get_args, get_origin
from weakref import WeakKeyDictionary

_NAMES: Final = frozenset({"HTTPConnection", "Request", "WebSocket"})
_WRAPPERS: Final = frozenset({"Annotated", "Optional", "Union"})
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_UNIONS: Final = (Union, types.UnionType)
_MISSING: Final = object()

Function: TypeAlias = Callable[..., object]
Namespace: TypeAlias = Mapping[str, object]


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
    # A name that did not resolve now may do so later: a class below, a module not imported yet.
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
    namespace = _namespace(function)
    certain = True
    for index, parameter in enumerate(parameters):
        leaves = list(_leaves(parameter.annotation, namespace))
        resolved = any(_is_request_class(leaf) for leaf in leaves)
        if resolved or not _NAMES.isdisjoint(leaf for leaf in leaves if isinstance(leaf, str)):
            positional = parameter.kind in _POSITIONAL
            return _Place(parameter.name, index if positional else None), resolved
        certain = certain and not any(isinstance(leaf, str) for leaf in leaves)
    return None, certain


def _namespace(function: Function) -> Namespace:
    """Where the names in a function's annotations mean something."""
    inner = inspect.unwrap(function)
    if not inspect.isfunction(inner):
        inner = inspect.unwrap(inner.__init__ if inspect.isclass(inner) else type(inner).__call__)
    if not inspect.isfunction(inner):
        return vars(builtins)
    return ChainMap(_enclosing(inner), inner.__globals__, dict(vars(builtins)))


def _enclosing(function: types.FunctionType) -> dict[str, object]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    enclosing: dict[str, object] = {}
    for name, cell in cells:
        with suppress(ValueError):  # not assigned yet
            enclosing[name] = cell.cell_contents
    return enclosing


# -- what an annotation is made of -----------------------------------------------------------------


def _leaves(annotation: object, namespace: Namespace) -> Iterator[object]:
    """The types that an annotation admits; what does not resolve comes as its last word."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        with suppress(SyntaxError):
            yield from _leaves_of_text(ast.parse(annotation.strip(), mode="eval").body, namespace)
    elif get_origin(annotation) is Annotated:
        yield from _leaves(get_args(annotation)[0], namespace)
    elif get_origin(annotation) in _UNIONS:
        for member in get_args(annotation):
            yield from _leaves(member, namespace)
    elif (meaning := getattr(annotation, "__value__", None)) is not None:  # `type Alias = ...`
        yield from _leaves(meaning, namespace)
    else:
        yield annotation


def _leaves_of_text(node: ast.expr, namespace: Namespace) -> Iterator[object]:
    # By hand: one name that does not resolve must not hide the others, as it does with
    # typing.get_type_hints(), and nothing of the user's is evaluated.
    match node:
        case ast.Constant(value=str(text)):
            yield from _leaves(text, namespace)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from _leaves_of_text(left, namespace)
            yield from _leaves_of_text(right, namespace)
        case ast.Subscript(value=wrapper, slice=inside) if _last_word(wrapper) in _WRAPPERS:
            members = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            for member in members[:1] if _last_word(wrapper) == "Annotated" else members:
                yield from _leaves_of_text(member, namespace)
        case ast.Name() | ast.Attribute():
            found = _lookup(node, namespace)
            if found is _MISSING:
                yield _last_word(node)
            else:
                yield from _leaves(found, namespace)
        case _:
            return


def _lookup(node: ast.expr, namespace: Namespace) -> object:
    match node:
        case ast.Name(id=name):
            return namespace.get(name, _MISSING)
        case ast.Attribute(value=value, attr=name):
            return getattr(_lookup(value, namespace), name, _MISSING)
        case _:
            return _MISSING


def _last_word(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


# -- what Starlette calls a request ----------------------------------------------------------------


def _connection_class() -> type | None:
    # Where nobody imported Starlette there is no request: we never import it ourselves.
    return getattr(sys.modules.get("starlette.requests"), "HTTPConnection", None)


def _is_request_class(leaf: object) -> bool:
    connection = _connection_class()
    return connection is not None and isinstance(leaf, type) and issubclass(leaf, connection)


def _is_request(value: object) -> bool:
    connection = _connection_class()
    if connection is not None and isinstance(value, connection):
        return True
    return hasattr(value, "is_disconnected") or hasattr(value, "receive")
