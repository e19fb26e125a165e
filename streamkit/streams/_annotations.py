"""Does an annotation admit a request? Looked into name by name: one unknown name hides no other."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import (
    Annotated,
    Final,
    ForwardRef,
    Optional,
    TypeAlias,
    Union,
    cast,
    get_args,
    get_origin,
)

_WRAPPERS: Final[dict[str, object]] = {
    "Annotated": Annotated,
    "Optional": Optional,
    "Union": Union,
}
_UNIONS: Final = (Union, types.UnionType)
_MISSING: Final = object()

Function: TypeAlias = Callable[..., object]
Namespace: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an annotation admits a request, and whether that will be the same tomorrow."""

    is_request: bool
    certain: bool


@dataclass(frozen=True, slots=True)
class RequestKind:
    """What counts as a request where an annotation is read.

    Attributes:
        covers: Whether what an annotation names is one.
        words: Names that count where they resolve to nothing (imported under ``TYPE_CHECKING``,
            most often).
    """

    covers: Callable[[object], bool]
    words: frozenset[str]

    def judge(self, annotation: object, namespace: Namespace) -> Verdict:
        """Look into an annotation: an object, a string or postponed, a union or ``Annotated``.

        Nothing of the user's is evaluated. ``namespace`` gives the names in strings a meaning.
        """
        try:
            leaves = list(_leaves(annotation, namespace))
        except RecursionError:  # an alias of itself admits nothing
            return Verdict(False, certain=True)
        unknown = {leaf for leaf in leaves if isinstance(leaf, str)}
        if any(self.covers(leaf) for leaf in leaves if not isinstance(leaf, str)):
            return Verdict(True, certain=True)
        # A name that did not resolve now may do so later: a class below, a module to be imported.
        return Verdict(not self.words.isdisjoint(unknown), certain=not unknown)


def connection_class(name: str) -> type | None:
    """Return a class of ``starlette.requests``; None where nobody imported that."""
    # Then there is no request either, so we never import it ourselves.
    return getattr(sys.modules.get("starlette.requests"), name, None)


def _is_subclass_of(name: str) -> Callable[[object], bool]:
    def covers(leaf: object) -> bool:
        base = connection_class(name)
        return base is not None and isinstance(leaf, type) and issubclass(leaf, base)

    return covers


CONNECTION: Final = RequestKind(
    _is_subclass_of("HTTPConnection"), frozenset({"HTTPConnection", "Request", "WebSocket"})
)
"""Whatever has a client that may leave: what ``cancellable`` looks for."""

REQUEST: Final = RequestKind(_is_subclass_of("Request"), frozenset({"Request"}))
"""What a model's methods may take as their request: Truss's rule, but for how it is written."""


def namespace_of(function: Function) -> Namespace:
    """Where the names in a function's annotations mean something."""
    if inspect.ismethod(function):
        # Last, though Python would look there first: a method called `list` is no type.
        owner = dict(inspect.getmembers_static(type(function.__self__)))
        return ChainMap(dict(namespace_of(function.__func__)), owner)
    if isinstance(function, functools.partial):
        return namespace_of(function.func)
    inner = inspect.unwrap(function)
    if inner is not function:
        return namespace_of(inner)
    if inspect.isfunction(function):
        return ChainMap(_enclosing(function), function.__globals__, dict(vars(builtins)))
    caller = function.__init__ if inspect.isclass(function) else type(function).__call__
    return namespace_of(caller) if inspect.isfunction(caller) else vars(builtins)


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
    origin = get_origin(annotation)
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        with suppress(SyntaxError):
            yield from _leaves_of_text(ast.parse(annotation.strip(), mode="eval").body, namespace)
    elif isinstance(annotation, ast.expr):
        yield from _leaves_of_text(annotation, namespace)
    elif origin is Annotated:
        yield from _leaves(get_args(annotation)[0], namespace)
    elif origin in _UNIONS:
        for member in get_args(annotation):
            yield from _leaves(member, namespace)
    elif origin is not None:  # Request[State] is a Request, list[Request] a list
        yield from _leaves(origin, namespace)
    else:
        yield from _leaves_of_name(annotation, namespace)


def _leaves_of_name(annotation: object, namespace: Namespace) -> Iterator[object]:
    meaning: object = None
    with suppress(NameError):  # a type statement is evaluated late
        meaning = getattr(annotation, "__value__", None)  # `type Alias = …`
    if meaning is None:
        meaning = getattr(annotation, "__supertype__", None)  # NewType
    if meaning is None:
        meaning = getattr(annotation, "__bound__", None)  # TypeVar("R", bound=Request)
    if meaning is not None:
        yield from _leaves(meaning, namespace)
    elif constraints := getattr(annotation, "__constraints__", ()):  # TypeVar("R", A, B)
        for each in constraints:
            yield from _leaves(each, namespace)
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
        case ast.Subscript():
            for part in _parts(node, namespace):
                yield from _leaves_of_text(part, namespace)
        case ast.Name() | ast.Attribute():
            found = _lookup(node, namespace)
            if found is _MISSING:
                yield _last_word(node)
            else:
                yield from _leaves(found, namespace)
        case _:
            return


def _parts(node: ast.Subscript, namespace: Namespace) -> list[ast.expr]:
    wrapper = _wrapper(node.value, namespace)
    if wrapper is None:  # Request[State] is a Request
        return [node.value]
    members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return members[:1] if wrapper is Annotated else members


def _wrapper(node: ast.expr, namespace: Namespace) -> object | None:
    found = _lookup(node, namespace)
    if found is _MISSING:
        return _WRAPPERS.get(_last_word(node))
    return found if any(found is wrapper for wrapper in _WRAPPERS.values()) else None


def _lookup(node: ast.expr, namespace: Namespace) -> object:
    match node:
        case ast.Name(id=name):
            return namespace.get(name, _MISSING)
        case ast.Attribute(value=value, attr=name):
            return cast("object", getattr(_lookup(value, namespace), name, _MISSING))
        case _:
            return _MISSING


def _last_word(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
