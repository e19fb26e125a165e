"""What ends by itself when its request does: `generate()` of transformers, see ``_generate``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from ._callee import own_nodes
from ._class import Member, ModelClass
from ._paths import running

_TASKS: Final = frozenset({"image-text-to-text", "summarization", "text-generation"})
_TASKS_TO_TEXT: Final = ("text2text-generation", "translation")


def generates(model: ModelClass, function: ast.expr) -> bool:
    """Whether calling it is `generate()` of what transformers made, or a pipeline around that."""
    match function:
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="self"), attr=name), attr=method):
            return method == "generate" and any(
                model.names.path(maker.func).startswith("transformers.")
                for maker in _makers(model, name)
            )
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return any(_is_pipeline(model, maker) for maker in _makers(model, name))
        case _:
            return False


def line_that_generates(model: ModelClass, member: Member) -> int | None:
    """Return where a method, or a helper that it calls, does so."""
    for step in running(model, member):
        for node in own_nodes(step.function):
            if isinstance(node, ast.Call) and generates(model, node.func):
                return node.lineno
    return None


def _makers(model: ModelClass, name: str) -> Iterator[ast.Call]:
    """The calls that ``self.name`` is assigned from, without what is chained behind them."""
    for node in ast.walk(model.node):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        for target, value in _assigned_to_self(node):
            if target == name:
                yield from _first_call(value)


def _assigned_to_self(node: ast.Assign | ast.AnnAssign) -> Iterator[tuple[str, ast.expr]]:
    """Each ``self.name`` that a statement assigns to, and the value."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for target in targets:
        match target:
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if node.value is not None:
                yield name, node.value
            case _:
                pass


def _first_call(value: ast.expr) -> Iterator[ast.Call]:
    while isinstance(value, ast.Call):
        match value.func:
            case ast.Attribute(value=ast.Call() as inner):  # `…from_pretrained(x).to("cuda")`
                value = inner
            case _:
                yield value
                return


def _is_pipeline(model: ModelClass, maker: ast.Call) -> bool:
    if model.names.path(maker.func) != "transformers.pipeline":
        return False
    tasks = [*maker.args[:1], *(each.value for each in maker.keywords if each.arg == "task")]
    return any(
        isinstance(task, ast.Constant)
        and isinstance(task.value, str)
        and (task.value in _TASKS or task.value.startswith(_TASKS_TO_TEXT))
        for task in tasks
    )
