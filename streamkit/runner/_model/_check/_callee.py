"""How a function will be called, by its text: what it takes, its kind, what decorators change."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from streamkit.runner._model._shape import Kind

from ._names import Function, Names

CANCELLABLE: Final = frozenset({"streamkit.cancellable", "streamkit.streams.cancellable"})
# What keeps signature and kind; of others that is assumed, and said.
_KEEP: Final = frozenset(
    {
        "abc.abstractmethod",
        "builtins.classmethod",
        "typing.final",
        "typing.no_type_check",
        "typing.override",
        "typing_extensions.override",
    }
)
# What is around it is a plain function, whatever is inside.
_PLAIN: Final = frozenset({"functools.cache", "functools.lru_cache"})
_PROPERTIES: Final = frozenset({"builtins.property", "functools.cached_property"})
_NESTED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Callee:
    """One function, decorators and all.

    Attributes:
        node: The innermost function.
        arguments: What it takes, by its signature (which follows ``functools.wraps``).
        kind: How calling the outermost function behaves.
        layers: The functions that a call goes through, from the outermost inwards.
        bound: Whether the first parameter is the model or its class.
        cancellable: Whether streamkit's decorator is on it.
        interrupt: Whether that may interrupt its thread.
        unsure: Decorators that this check cannot look into.
    """

    node: Function | ast.Lambda
    arguments: ast.arguments
    kind: Kind
    layers: tuple[Function | ast.Lambda, ...]
    bound: bool = True
    cancellable: bool = False
    interrupt: bool = False
    unsure: tuple[str, ...] = ()


def body_of(node: ast.AST) -> list[ast.AST]:
    """What a function or a branch does; not its annotations, defaults and decorators."""
    body: list[ast.AST] | ast.AST = getattr(node, "body", [])
    return [body] if isinstance(body, ast.AST) else list(body)


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """What runs when a function does: not what the functions and classes inside it do."""
    todo = body_of(function)
    while todo:
        node = todo.pop(0)
        yield node
        if not isinstance(node, _NESTED):
            todo[:0] = ast.iter_child_nodes(node)


def nested(function: ast.AST) -> dict[str, Function]:
    """The functions that are defined right inside another."""
    return {
        node.name: node
        for node in own_nodes(function)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def kind_of(function: Function | ast.Lambda) -> Kind:
    """How calling a function without its decorators behaves."""
    yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(function))
    if isinstance(function, ast.AsyncFunctionDef):
        return Kind.ASYNC_GENERATOR if yields else Kind.COROUTINE
    return Kind.GENERATOR if yields else Kind.FUNCTION


def parameters(callee: Callee) -> list[tuple[str, ast.expr | None]]:
    """Name (with its stars) and annotation of what the bound function takes."""
    arguments = callee.arguments
    positional = [*arguments.posonlyargs, *arguments.args]
    if callee.bound and positional:
        positional = positional[1:]
    found = [(each.arg, each.annotation) for each in positional]
    if arguments.vararg:
        found.append((f"*{arguments.vararg.arg}", arguments.vararg.annotation))
    found += [(each.arg, each.annotation) for each in arguments.kwonlyargs]
    if arguments.kwarg:
        found.append((f"**{arguments.kwarg.arg}", arguments.kwarg.annotation))
    return found


def callee_of(function: Function | ast.Lambda, names: Names) -> Callee | None:
    """Read a function with its decorators; None if they make no function of it."""
    callee: Callee | None = Callee(function, function.args, kind_of(function), (function,))
    decorators = [] if isinstance(function, ast.Lambda) else function.decorator_list
    for decorator in reversed(decorators):
        callee = callee and decorated(callee, decorator, names)
    return callee


def decorated(callee: Callee, decorator: ast.expr, names: Names) -> Callee | None:
    """Read what one decorator makes of a function; None if that is no function."""
    called = isinstance(decorator, ast.Call)
    plain = decorator.func if isinstance(decorator, ast.Call) else decorator
    path = names.path(plain)
    if path in _PROPERTIES:
        return None
    if path == "builtins.staticmethod":
        return replace(callee, bound=False)
    if path in CANCELLABLE:
        return _made_cancellable(callee, decorator)
    if path in _PLAIN:
        return replace(callee, kind=Kind.FUNCTION)
    if path in _KEEP:
        return callee
    ours = names.functions.get(path.removeprefix("."))
    wrapper = ours and _returned(ours)
    if ours and called and isinstance(wrapper, ast.FunctionDef):  # a factory: @retry(3)
        ours, wrapper = wrapper, _returned(wrapper)
    if ours is None or wrapper is None:
        return replace(callee, unsure=(*callee.unsure, ast.unparse(decorator)))
    return callee if wrapper == "itself" else _wrapped(callee, wrapper, names)


def _made_cancellable(callee: Callee, decorator: ast.expr) -> Callee:
    generators = (Kind.GENERATOR, Kind.ASYNC_GENERATOR)
    kind = Kind.ASYNC_GENERATOR if callee.kind in generators else callee.kind
    if callee.cancellable and callee.kind is Kind.ASYNC_GENERATOR:
        kind = Kind.FUNCTION  # what is made of a generator is none: a function that returns one
    options = decorator.keywords if isinstance(decorator, ast.Call) else []
    interrupt = any(each.arg == "interrupt" for each in options)
    return replace(callee, kind=kind, cancellable=True, interrupt=interrupt)


def _returned(decorator: Function) -> Function | str | None:
    """What a decorator returns: a function inside it, ``itself`` (its argument), or None."""
    returned = {
        ast.unparse(node.value)
        for node in own_nodes(decorator)
        if isinstance(node, ast.Return) and node.value is not None
    }
    if len(returned) != 1:
        return None
    name = returned.pop()
    if name in {argument.arg for argument in decorator.args.args}:
        return "itself"
    return nested(decorator).get(name)


def _wrapped(callee: Callee, wrapper: Function | str, names: Names) -> Callee | None:
    assert not isinstance(wrapper, str)
    follows = any(
        names.path(each.func) == "functools.wraps"
        for each in wrapper.decorator_list
        if isinstance(each, ast.Call)
    )
    return replace(
        callee,
        arguments=callee.arguments if follows else wrapper.args,
        kind=kind_of(wrapper),
        layers=(wrapper, *callee.layers) if follows else (wrapper,),
    )
