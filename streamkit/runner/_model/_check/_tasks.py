"""Tasks that a method starts beside itself: a cancel ends the method, and leaves them running."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from ._callee import own_nodes
from ._class import Member, ModelClass
from ._names import Names
from ._paths import running
from ._report import Code, Finding, warning

_STARTS: Final = frozenset({"asyncio.create_task", "asyncio.ensure_future"})
_SUSPENDS: Final = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)


def task_hazards(model: ModelClass, member: Member) -> Iterator[Finding]:
    """Look at one method; a task that is handed to others is not followed."""
    for step in running(model, member):
        for node in own_nodes(step.function):
            match node:
                case ast.Expr(value=ast.Call() as call):
                    name = None
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call):
                    pass
                case _:
                    continue
            if _starts_a_task(model.names, call.func) and not _is_ended(step.function, call, name):
                text = (
                    f"the task of {ast.unparse(call.func)}() runs on when the request is cut "
                    "short: cancel it in a `finally`, or start it in an `asyncio.TaskGroup`"
                )
                yield warning(call, Code.TASK_RUNS_ON, member.name, text)


def _starts_a_task(names: Names, function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute) and function.attr == "create_task":
        owner = ast.unparse(function.value)  # `group.create_task()` has an owner that ends it
        return owner == "asyncio" or owner.removesuffix("()").endswith("loop")
    return names.path(function) in _STARTS


def _is_ended(function: ast.AST, call: ast.Call, name: str | None) -> bool:
    """Whether something cancels it, or waits for it at once, which hands a cancel on."""
    if name is None:
        return False
    waits: list[int] = []
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(id=of), attr="cancel") if of == name:
                return True
            case ast.Await() if _mentions(node, name):
                waits.append(node.lineno)
            case _:
                pass
    others = [node.lineno for node in own_nodes(function) if isinstance(node, _SUSPENDS)]
    return any(not any(call.lineno < other < wait for other in others) for wait in waits)


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(each, ast.Name) and each.id == name for each in ast.walk(node))
