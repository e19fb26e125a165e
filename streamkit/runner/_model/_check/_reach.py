"""How a cancel reaches each method: a table by the kind of its code, and what it asks by itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from streamkit.runner._model._patience import ASK_GRACE
from streamkit.runner._model._shape import Kind

from ._callee import kind_of, own_nodes
from ._class import Member, ModelClass
from ._generating import line_that_generates
from ._paths import ASKS, ASKS_CLIENT, function_named, line_that_asks, running

# Whatever the cause: the client left, the cancel route, a deadline, a drain.
_REACHES: Final = {
    Kind.COROUTINE: "interrupted at its await; `finally` runs",
    Kind.ASYNC_GENERATOR: "interrupted at its await or closed at its yield; `finally` runs",
    Kind.GENERATOR: "closed on its thread after the next() that runs; `finally` runs",
    Kind.FUNCTION: "runs to its end on its thread: nothing in it asks",
}
_ASKING: Final = {
    Kind.GENERATOR: "closed on its thread after the next() that runs, which asks (line {line})",
    Kind.FUNCTION: "asks on its thread (line {line}), and ends itself",
}
_GENERATES: Final = "transformers asks between two tokens (line {line}), and ends `generate()`"
_NOT_CANCELLED: Final = {
    "load": "belongs to no request; a signal ends it",
    "is_healthy": "belongs to no request",
    "setup_environment": "belongs to no request",
}


def code_kind(member: Member) -> Kind | None:
    """What runs for a call of a method: what is inside, where a function is around it."""
    callee = member.callee
    if callee is None:
        return None
    if callee.cancellable or callee.kind is Kind.FUNCTION:
        return kind_of(callee.node)
    return callee.kind


def reach(model: ModelClass, member: Member) -> str:
    """Say in one line how a cancel reaches a method."""
    kind = code_kind(member)
    if member.name in _NOT_CANCELLED:
        return _NOT_CANCELLED[member.name]
    if kind is None or member.callee is None:
        return "cannot be told: it is made where this check does not look"
    text = _REACHES[kind]
    line = line_that_asks(model, member, ASKS - ASKS_CLIENT) or (
        line_that_asks(model, member, ASKS) if kind is Kind.FUNCTION else None
    )
    if line is not None and kind in _ASKING:
        text = _ASKING[kind].format(line=line)
    elif kind is Kind.FUNCTION and member.callee.interrupt:
        text = "interrupted on its thread, between two lines of Python"
    elif kind is Kind.FUNCTION and (line := line_that_generates(model, member)) is not None:
        text = _GENERATES.format(line=line)
    if kind is Kind.FUNCTION and returned_streams(model, member):
        text += "; the stream that it returns is closed"
    client = line_that_asks(model, member, ASKS_CLIENT)
    if client is not None:
        return f"asks is_disconnected() (line {client}), has {ASK_GRACE:.3g} s to act; then {text}"
    return text


def returned_streams(model: ModelClass, member: Member) -> list[ast.Return]:
    """Where a plain function hands over a generator."""
    return [
        node
        for step in running(model, member)
        if step.at_once
        for node in own_nodes(step.function)
        if isinstance(node, ast.Return) and _is_stream(model, step.function, node.value)
    ]


def _is_stream(model: ModelClass, function: ast.AST, value: ast.expr | None) -> bool:
    match value:
        case ast.GeneratorExp():
            return True
        case ast.Call(func=called):
            target = function_named(model, called, dict(_defined(function)))
            return target is not None and kind_of(target) in (
                Kind.GENERATOR,
                Kind.ASYNC_GENERATOR,
            )
        case _:
            return False


def _defined(function: ast.AST) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in own_nodes(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
