"""Which code runs when a method is called, on the loop or on a thread, and which of it asks."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from streamkit.runner._model._shape import Kind

from ._callee import Callee, body_of, kind_of, nested, own_nodes
from ._class import Member, ModelClass
from ._names import Function

ASKS_CLIENT: Final = frozenset({"is_disconnected"})
ASKS: Final = ASKS_CLIENT | {"current_token", "raise_if_cancelled", "watch_disconnect"}


@dataclass(frozen=True, slots=True)
class Running:
    """One function that a method runs.

    Attributes:
        on_loop: It holds the event loop while it runs.
        at_once: It runs in the method's own call: it is neither a coroutine nor a generator.
    """

    function: Function | ast.Lambda
    on_loop: bool
    at_once: bool


def running(model: ModelClass, member: Member) -> list[Running]:
    """Every function of this file that runs for a call of a method, itself first."""
    callee = member.callee
    if callee is None:
        return []
    roots = dict.fromkeys([*callee.layers, callee.node])
    todo: list[tuple[Running, dict[str, Function]]] = [
        (_root(function, callee), {}) for function in roots
    ]
    found: dict[tuple[int, bool], Running] = {}
    while todo:
        step, scope = todo.pop(0)
        key = (id(step.function), step.on_loop)
        if key in found:
            continue
        found[key] = step
        inner = scope | nested(step.function)
        todo += [(each, inner) for each in _called(model, step, inner)]
    return list(found.values())


def _root(function: Function | ast.Lambda, callee: Callee) -> Running:
    on_loop = isinstance(function, ast.AsyncFunctionDef)
    return Running(function, on_loop, at_once=callee.kind is Kind.FUNCTION and not on_loop)


def _called(model: ModelClass, step: Running, scope: dict[str, Function]) -> Iterator[Running]:
    returned = {node.value for node in own_nodes(step.function) if isinstance(node, ast.Return)}
    for node in own_nodes(step.function):
        if not isinstance(node, ast.Call):
            continue
        target = function_named(model, node.func, scope)
        if target is None:
            continue
        kind = kind_of(target)
        on_loop = isinstance(target, ast.AsyncFunctionDef) or step.on_loop
        if kind is Kind.GENERATOR and node in returned:
            on_loop = False  # a sync generator that is handed over runs on a thread
        yield Running(target, on_loop, at_once=step.at_once and kind is Kind.FUNCTION)


def function_named(
    model: ModelClass, expression: ast.expr, scope: dict[str, Function]
) -> Function | None:
    """Return the function of this file that a name or ``self.name`` stands for."""
    match expression:
        case ast.Name(id=name):
            return scope.get(name) or model.names.functions.get(name)
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
            member = model.members.get(name)
            node = member.callee.node if member and member.callee else None
            return None if isinstance(node, ast.Lambda) else node
        case _:
            return None


# -- who asks whether to stop ----------------------------------------------------------------------


def line_that_asks(model: ModelClass, member: Member, words: Collection[str]) -> int | None:
    """Return where a method, or a helper that it names, says one of the words."""
    if member.callee is None:
        return None
    todo: list[ast.AST] = [member.callee.node, *member.callee.layers]
    seen: set[int] = set()
    while todo:
        function = todo.pop(0)
        if id(function) in seen:
            continue
        seen.add(id(function))
        said = dict(_identifiers(function))
        for word in words:
            if word in said:
                return said[word]
        todo += [helper for name in said for helper in _helpers(model, name)]
    return None


def _identifiers(function: ast.AST) -> Iterator[tuple[str, int]]:
    for statement in body_of(function):
        for node in ast.walk(statement):
            match node:
                case ast.Attribute(attr=name) | ast.Name(id=name):
                    yield name, node.lineno
                case _:
                    pass


def _helpers(model: ModelClass, name: str) -> list[ast.AST]:
    if name in model.members:
        callee = model.members[name].callee
        return [callee.node, *callee.layers] if callee else []
    return [model.names.functions[name]] if name in model.names.functions else []
